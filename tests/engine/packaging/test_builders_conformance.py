"""Every builder makes the same image of the same spec, as seen from inside a running container."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_model_deploy.engine.containers import Limits, ensure_image, host_config
from airflow_model_deploy.engine.packaging import bless_image, read_servable
from airflow_model_deploy.engine.packaging.images import (
    DockerBuilder,
    File,
    Folder,
    Healthcheck,
    ImageSpec,
    Layer,
    OciBuilder,
    Settings,
    model_spec,
)
from airflow_model_deploy.engine.packaging.images.blobs import DOCKER_LIST, DOCKER_MANIFEST, sha256_of
from tests.engine.containers.support import container
from tests.engine.packaging.on_engine import RUNTIME, build_runtime

if TYPE_CHECKING:
    from pathlib import Path

    from docker import APIClient

    from airflow_model_deploy.engine.containers import Engine
    from airflow_model_deploy.engine.packaging.images import Builder
    from tests.engine.packaging.conftest import Parts

pytestmark = pytest.mark.docker
_LIMITS = Limits(memory_bytes=256 << 20, cpus=1)
_LOOK = """
import hashlib, json, os, sys
def entry(path):
    s = os.lstat(path)
    try:
        content = hashlib.sha256(open(path, "rb").read()).hexdigest()
    except OSError as e:
        content = type(e).__name__
    return [oct(s.st_mode), s.st_uid, s.st_gid, int(s.st_mtime), content]
def tried(path):
    try:
        open(path, "w")
        return "written"
    except OSError as e:
        return e.strerror
paths = ["/opt", "/run/model-server", "/srv/data"]
for top in ("/opt/tool", "/srv/data"):
    for folder, folders, files in os.walk(top):
        paths += [os.path.join(folder, name) for name in folders + files]
print(json.dumps({
    "argv": sys.argv[1:], "cwd": os.getcwd(), "user": [os.getuid(), os.getgid()],
    "env": {k: v for k, v in os.environ.items() if k not in ("HOSTNAME", "HOME")},
    "entries": {path: entry(path) for path in sorted(paths)},
    "write": [tried("/opt/tool/new"), tried("/srv/data/open/new")],
}))
"""


@pytest.fixture(params=["docker", "oci"])
def builder(request: pytest.FixtureRequest, engine: Engine) -> Builder:
    return DockerBuilder(engine) if request.param == "docker" else OciBuilder()


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What each builder's image looked like, for the next one to be compared with."""
    return {}


def _spec(base: str, content: bytes = b"print('hello')\n") -> ImageSpec:
    return ImageSpec(
        base=base,
        layers=(
            Layer(
                "tool",
                (
                    File("opt/tool/hello.py", content),
                    File("opt/tool/näme with spaces.txt", b"x"),
                    File("opt/tool/run.sh", b"#!/bin/sh\n", executable=True),
                    Folder("run/model-server", 0o700, 65532, 65532),
                ),
            ),
            Layer(
                "data",
                (
                    File("srv/data/owned.bin", bytes(100_000), uid=65532, gid=7),
                    Folder("srv/data/empty", 0o750, 5, 6),
                    Folder("srv/data/open", 0o777),
                    File("opt/tool/hello.py.bak", b"of the upper layer"),
                ),
                compressed=False,
            ),
        ),
        settings=Settings(
            entrypoint=("python3", "-c", _LOOK),
            command=("one", "two words", "$three"),
            env={"MODE": 'quoted "$HOME"', "PATH": "/usr/local/bin:/usr/bin:/bin"},
            user="65532:65532",
            working_dir="/srv/data",
            labels={"org.opencontainers.image.title": "a $title"},
            ports=("8080/tcp",),
            healthcheck=Healthcheck(("python3", "-c", "pass"), interval_s=30),
            stop_signal="SIGINT",
        ),
        kind="runtime",
    )


def test_an_image_is_the_same_whoever_builds_it(
    client: APIClient, builder: Builder, base: str, repository: str, seen: dict[str, Any]
) -> None:
    spec = _spec(base)
    built = builder.build(spec, f"{repository}-{builder.name}", log=print)
    ensure_image(client, built.reference, log=print)
    config = client.inspect_image(built.reference)["Config"]
    labels = config["Labels"]
    kept = ("Entrypoint", "Cmd", "User", "WorkingDir", "ExposedPorts", "Healthcheck", "StopSignal")
    with container(client, built.reference, None, host_config=host_config(client, _LIMITS)) as made:
        client.start(made)
        client.wait(made)
        inside = json.loads(client.logs(made))
    found = {k: config[k] for k in kept} | {"Env": sorted(config["Env"]), "Labels": labels, "tag": built.tag}
    found |= {"inside": inside, "base": built.base_digest}

    assert inside["user"] == [65532, 65532]
    assert inside["argv"] == ["one", "two words", "$three"]
    assert inside["env"]["MODE"] == 'quoted "$HOME"'
    assert inside["write"] == ["Read-only file system"] * 2
    entries = inside["entries"]
    assert entries["/run/model-server"][:4] == [oct(0o40700), 65532, 65532, 0]
    assert entries["/srv/data/owned.bin"][:4] == [oct(0o100644), 65532, 7, 0]
    assert entries["/srv/data/empty"][:3] == [oct(0o40750), 5, 6]
    assert entries["/opt/tool/run.sh"][:3] == [oct(0o100755), 0, 0]
    assert labels["io.model-deploy.content-key"][:12] == (built.tag or "").rpartition("-")[2]
    assert labels["io.model-deploy.kind"] == "runtime"
    assert labels["org.opencontainers.image.base.digest"] == built.base_digest

    assert seen.setdefault("image", found) == found


def test_a_retry_changes_nothing_and_other_content_gets_another_tag(
    builder: Builder, base: str, repository: str
) -> None:
    first = builder.build(_spec(base), repository, log=print)
    again = builder.build(_spec(base), repository, log=print)
    assert (first.existed, again.existed) == (False, True)
    assert again.uploaded_bytes == 0
    assert (again.reference, again.tag, again.image_id) == (first.reference, first.tag, first.image_id)
    other = builder.build(_spec(base, b"print('other')\n"), repository, log=print)
    assert not other.existed
    assert other.tag != first.tag
    assert other.digest != first.digest


def test_a_base_of_two_platforms_gives_every_builder_the_same_key(
    client: APIClient, engine: Engine, base: str, registry: str, repository: str
) -> None:
    index = _push_index(base, registry)
    spec = _spec(f"{registry}/python@{index}")
    docker = DockerBuilder(engine).build(spec, repository, log=print)
    oci = OciBuilder().build(spec, f"{repository}-oci", log=print)
    assert docker.base_digest == index != oci.base_digest
    assert docker.tag == oci.tag
    assert OciBuilder().build(spec, repository, log=print).reference == docker.reference
    with contextlib.suppress(Exception):
        client.remove_image(f"{registry}/python@{index}")


def _push_index(base: str, registry: str) -> str:
    """Push an index that has the base for this machine, and a copy of it that says it is for another."""
    manifests = f"http://{registry}/v2/python/manifests"
    config_type = "application/vnd.docker.container.image.v1+json"
    found = httpx.get(f"{manifests}/{base.rpartition(':')[2]}", headers={"Accept": DOCKER_MANIFEST})
    manifest = found.json()
    config = httpx.get(f"http://{registry}/v2/python/blobs/{manifest['config']['digest']}").json()
    here = config["architecture"]
    other = "arm64" if here == "amd64" else "amd64"
    data = json.dumps(config | {"architecture": other}).encode()
    where = httpx.post(f"http://{registry}/v2/python/blobs/uploads/").headers["Location"]
    httpx.put(where, params={**httpx.URL(where).params, "digest": sha256_of(data)}, content=data)
    manifest["config"] = {"mediaType": config_type, "size": len(data), "digest": sha256_of(data)}
    entries = []
    for architecture, content in ((other, json.dumps(manifest).encode()), (here, found.content)):
        digest = sha256_of(content)
        sent = httpx.put(f"{manifests}/{digest}", content=content, headers={"Content-Type": DOCKER_MANIFEST})
        assert sent.status_code == 201
        entries.append(
            {
                "mediaType": DOCKER_MANIFEST,
                "digest": digest,
                "size": len(content),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}).encode()
    url = f"{manifests}/{sha256_of(index)}"
    assert httpx.put(url, content=index, headers={"Content-Type": DOCKER_LIST}).status_code == 201
    return sha256_of(index)


def test_what_another_builder_pushed_is_recognized(
    engine: Engine, builder: Builder, base: str, repository: str
) -> None:
    other: Builder = OciBuilder() if builder.name == "docker" else DockerBuilder(engine)
    pushed = builder.build(_spec(base), repository, log=print)
    found = other.build(_spec(base), repository, log=print)
    assert found.existed
    assert found.reference == pushed.reference


def test_a_model_on_the_real_runtime_answers_its_golden_requests(
    client: APIClient,
    engine: Engine,
    builder: Builder,
    base: str,
    registry: str,
    repository: str,
    parts: Parts,
    tmp_path: Path,
) -> None:
    runtime = build_runtime(builder, base, registry)
    parts.write(tmp_path / "servable")
    built = builder.build(model_spec(runtime.reference, tmp_path / "servable"), repository, log=print)
    blessing = bless_image(
        engine, built.reference, tmp_path / "servable", limits=_LIMITS, latency_ms=2000, log=print
    )
    assert blessing.passed
    assert blessing.bundle_digest == built.digest
    config = client.inspect_image(built.reference)["Config"]
    assert config["Entrypoint"] == ["python3", "-m", "model_server"]
    assert config["Labels"]["io.model-deploy.servable-digest"] == read_servable(tmp_path / "servable").digest
    assert RUNTIME in config["Labels"]["org.opencontainers.image.base.name"]
