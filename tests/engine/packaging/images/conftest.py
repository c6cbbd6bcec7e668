from __future__ import annotations

import gzip
import io
import os
import tarfile
import uuid

import pytest

from airflow_model_deploy.engine.packaging.images import (
    File,
    Folder,
    Healthcheck,
    ImageSpec,
    Layer,
    OciBuilder,
    RegistryOptions,
    Settings,
)
from airflow_model_deploy.engine.packaging.images.blobs import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    BytesContent,
    Descriptor,
    RawManifest,
    sha256_of,
    to_json,
)
from airflow_model_deploy.engine.packaging.images.layout import Layout
from tests.engine.packaging.images.servers import Server, running

MANY = 300_000  # bytes of a model: several chunks of CHUNK
CHUNK = 64 * 1024


@pytest.fixture
def registry():
    with running(Server()) as state:
        yield state


@pytest.fixture
def other_registry():
    with running(Server()) as state:
        yield state


@pytest.fixture
def real_registry():
    host = os.environ.get("TESTBED_REGISTRY")
    if not host:
        pytest.skip("TESTBED_REGISTRY is not set")
    return host


@pytest.fixture
def repository():
    """A name that nobody else uses."""
    return f"test-images/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def impatient():
    return builder()


def builder(credentials=(), **options):
    options = {"timeout_s": 5, "patience_s": 1.5, "chunk_bytes": CHUNK, **options}
    return OciBuilder(credentials, RegistryOptions(**options), platform="linux/amd64")


def base_blobs(architecture="amd64", env=("PATH=/usr/bin",), docker=False, onbuild=None):
    """A tiny image: (manifest, {descriptor: bytes})."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("etc/base")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"base"))
    layer = gzip.compress(buffer.getvalue(), mtime=0)
    config = to_json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "docker_version": "20.10",
            "container": "f00d",
            "config": {
                "Env": list(env),
                "Cmd": ["sh"],
                "Labels": {"of": "base"},
                "Hostname": "builder",
                "ExposedPorts": {"1/tcp": {}},
                **({"OnBuild": [onbuild]} if onbuild else {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [sha256_of(buffer.getvalue())]},
            "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "base"}],
        }
    )
    kinds = (
        (
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        )
        if docker
        else (OCI_CONFIG, OCI_LAYER_GZIP)
    )
    blobs = {Descriptor(kinds[0], sha256_of(config), len(config)): config}
    blobs[Descriptor(kinds[1], sha256_of(layer), len(layer))] = layer
    described, *layers = blobs
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    content = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": described.to_json(),
        "layers": [entry.to_json() for entry in layers],
    }
    return RawManifest(media_type, to_json(content)), blobs


def serve_base(state, repository="base", tag="1", **options):
    manifest, blobs = base_blobs(**options)
    for descriptor, data in blobs.items():
        state.blobs[repository, descriptor.digest] = data
    for name in (tag, manifest.digest):
        state.manifests[repository, name] = (manifest.media_type, manifest.data)
    return manifest


@pytest.fixture
def base_layout(tmp_path):
    """A base in a layout, as a reference."""
    layout = Layout(tmp_path / "base layout")
    manifest, blobs = base_blobs()
    for descriptor, data in blobs.items():
        layout.put(descriptor, BytesContent(data))
    layout.put_manifest(manifest, "1")
    return f"oci-layout:{layout.path}:1"


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(MANY))
    return path


@pytest.fixture
def spec_on(weights):
    """An image with a compressed and an uncompressed layer on a base."""

    def make(base, kind="model", **settings):
        layers = (
            Layer("code", (File("opt/app/main.py", b"print(1)\n"), Folder("run/app", 0o700, 65532, 65532))),
            Layer("model", (File("servable/weights.bin", weights),), compressed=False),
        )
        values = {
            "command": ("python3", "/opt/app/main.py"),
            "env": {"A": "1"},
            "user": "65532:65532",
            "labels": {"x": "y"},
            "ports": ("8080/tcp",),
            "healthcheck": Healthcheck(("true",)),
            "stop_signal": "SIGTERM",
            **settings,
        }
        return ImageSpec(base, layers, Settings(**values), kind)

    return make
