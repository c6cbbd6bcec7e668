from __future__ import annotations

import json

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging.images import Healthcheck, ImageSpec, Layer, Settings
from airflow_model_deploy.engine.packaging.images.blobs import DOCKER_LIST, OCI_INDEX
from airflow_model_deploy.engine.packaging.images.entries import File
from airflow_model_deploy.engine.packaging.images.foundation import ARCHITECTURE_LABEL, PYTHON_LABEL
from airflow_model_deploy.engine.packaging.images.oci_builder import OciBuilder
from tests.engine.packaging.images.conftest import base_blobs, builder, serve_base


def config_of(spec, tmp_path):
    built = builder().build(spec, f"oci-layout:{tmp_path}/out", log=lambda _: None)
    blobs = tmp_path / "out" / "blobs" / "sha256"
    manifest = json.loads((blobs / built.digest[7:]).read_text())
    return built, manifest, json.loads((blobs / built.image_id[7:]).read_text())


def test_a_docker_base_becomes_oci(registry, spec_on, tmp_path):
    base = serve_base(registry, docker=True, env=("PATH=/usr/bin", "A=0"))
    built, manifest, config = config_of(spec_on(f"{registry.host}/base:1"), tmp_path)
    assert built.base_digest == base.digest
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert {layer["mediaType"] for layer in manifest["layers"]} == {
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar",
    }
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert "container" not in config
    assert "docker_version" not in config
    run = config["config"]
    assert "Hostname" not in run
    assert run["Env"] == ["PATH=/usr/bin", "A=1"]
    assert run["Cmd"] == ["python3", "/opt/app/main.py"]
    assert "Entrypoint" not in run
    assert run["User"] == "65532:65532"
    assert run["ExposedPorts"] == {"1/tcp": {}, "8080/tcp": {}}
    assert run["StopSignal"] == "SIGTERM"
    assert run["Healthcheck"] == {
        "Test": ["CMD", "true"],
        "Interval": 10**10,
        "Timeout": 5 * 10**9,
        "StartPeriod": 6 * 10**10,
        "Retries": 3,
    }
    assert run["Labels"] == {
        "of": "base",
        "x": "y",
        "org.opencontainers.image.base.name": f"{registry.host}/base:1",
        "org.opencontainers.image.base.digest": base.digest,
        "io.model-deploy.kind": "model",
        "io.model-deploy.content-key": run["Labels"]["io.model-deploy.content-key"],
    }
    assert built.tag == "model-" + run["Labels"]["io.model-deploy.content-key"][:12]
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == 3
    assert [h.get("empty_layer", False) for h in config["history"]] == [False, False, False, True]


def test_no_path_of_this_machine_gets_into_the_image(spec_on, base_layout, tmp_path):
    _, manifest, config = config_of(spec_on(base_layout), tmp_path)
    assert str(tmp_path) not in json.dumps([manifest, config])
    assert "base.name" not in json.dumps(config)


def test_what_is_not_set_stays_the_bases(base_layout, tmp_path):
    spec = ImageSpec(base_layout, (Layer("x", (File("x", b""),)),), Settings(), "worker")
    _, _, config = config_of(spec, tmp_path)
    assert config["config"]["Cmd"] == ["sh"]
    assert config["config"]["Env"] == ["PATH=/usr/bin"]


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_the_platform_is_chosen_from_an_index(kind, registry, spec_on, tmp_path):
    entries = []
    for architecture in ("arm64", "amd64"):
        base = serve_base(registry, tag=architecture, architecture=architecture)
        entries.append(
            {
                "mediaType": base.media_type,
                "digest": base.digest,
                "size": len(base.data),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    registry.manifests["base", "1"] = (kind, json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
    built, _, config = config_of(spec_on(f"{registry.host}/base:1"), tmp_path)
    assert built.base_digest == entries[1]["digest"]
    assert config["architecture"] == "amd64"
    registry.manifests["base", "1"] = (
        kind,
        json.dumps({"schemaVersion": 2, "manifests": entries[:1]}).encode(),
    )
    with pytest.raises(InputError, match="not there for linux/amd64") as caught:
        config_of(spec_on(f"{registry.host}/base:1"), tmp_path)
    assert "linux/arm64" in str(caught.value)


def test_a_base_of_another_platform_is_refused(registry, spec_on, tmp_path):
    serve_base(registry, architecture="arm64")
    with pytest.raises(InputError, match="another platform"):
        config_of(spec_on(f"{registry.host}/base:1"), tmp_path)


@pytest.mark.parametrize(
    ("options", "labels", "words"),
    [
        (
            {"env": ("PYTHON_VERSION=3.12.4",)},
            {PYTHON_LABEL: "3.11"},
            "PYTHON_VERSION=3.12.4.*python:3.11-slim",
        ),
        ({}, {ARCHITECTURE_LABEL: "arm64"}, "another processor.*found: amd64; wanted: arm64"),
        ({"onbuild": "COPY . /app"}, {}, "ONBUILD COPY"),
    ],
)
def test_a_base_that_the_packages_do_not_fit_is_refused(registry, spec_on, options, labels, words):
    serve_base(registry, **options)
    spec = spec_on(f"{registry.host}/base:1", labels=labels)
    with pytest.raises(InputError, match=words):
        builder().build(spec, f"{registry.host}/out", log=lambda _: None)
    assert not registry.received("PATCH") + registry.received("PUT") + registry.count("POST")


def test_a_base_that_says_the_same_python_or_none_fits(registry, spec_on, tmp_path):
    for number, env in enumerate((("PYTHON_VERSION=3.11.14",), ("PATH=/bin",))):
        serve_base(registry, env=env)
        config_of(spec_on(f"{registry.host}/base:1", labels={PYTHON_LABEL: "3.11"}), tmp_path / str(number))


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_platform_follows_the_packages_else_the_base(architecture, registry, spec_on, tmp_path):
    entries = []
    for known in ("arm64", "amd64"):
        base = serve_base(registry, tag=known, architecture=known)
        entries.append(
            {
                "mediaType": base.media_type,
                "digest": base.digest,
                "size": len(base.data),
                "platform": {"os": "linux", "architecture": known},
            }
        )
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    registry.manifests["base", "1"] = (OCI_INDEX, index)
    out = f"oci-layout:{tmp_path}/out"
    labels = {ARCHITECTURE_LABEL: architecture}
    runtime = OciBuilder().build(spec_on(f"{registry.host}/base:1", labels=labels), out, log=lambda _: None)
    assert runtime.base_digest == base_blobs(architecture)[0].digest
    model = ImageSpec(runtime.reference, (Layer("x", (File("x", b""),)),), Settings(), "model")
    assert OciBuilder().build(model, out, log=lambda _: None).base_digest == runtime.digest


def test_a_base_of_an_unknown_kind_is_refused(registry, spec_on, tmp_path):
    registry.manifests["base", "1"] = ("application/vnd.docker.distribution.manifest.v1+json", b"{}")
    with pytest.raises(InputError, match="can't be a base"):
        config_of(spec_on(f"{registry.host}/base:1"), tmp_path)


def test_everything_that_decides_the_image_decides_the_key(spec_on, weights):
    def key(spec, base="sha256:1"):
        return spec.content_key(base)

    spec = spec_on("a")
    keys = [
        key(spec),
        key(spec, "sha256:2"),
        key(spec_on("a", env={"A": "2"})),
        key(spec_on("a", "worker")),
        key(spec_on("a", healthcheck=Healthcheck(("true",), retries=4))),
        key(ImageSpec("a", spec.layers[::-1], spec.settings, "model")),
    ]
    assert key(spec_on("b")) == keys[0]  # the same base by another name
    weights.write_bytes(b"other")
    keys.append(key(spec_on("a")))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "values",
    [
        {"env": {"A=B": "1"}},
        {"ports": ("8080",)},
        {"user": "a b"},
        {"working_dir": "x"},
        {"stop_signal": "TERM"},
        {"labels": {"": "x"}},
    ],
)
def test_settings_are_checked(values):
    with pytest.raises(InputError):
        Settings(**values)
