from __future__ import annotations

import base64
import json
import os
import uuid
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine import cli
from airflow_model_deploy.engine.cli_credentials import docker_credentials
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.packaging.conftest import Parts

REGISTRY = os.environ.get("TESTBED_REGISTRY", "")
BASE = f"{REGISTRY}/python:3.11-slim"
needs_registry = pytest.mark.skipif(not REGISTRY, reason="no registry: TESTBED_REGISTRY isn't set")


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_what_docker_login_wrote_is_used(configure: Path) -> None:
    broken = {"auth": "%%%"}
    auths = {
        "registry.example:5000": _auth("me", "se:cret"),
        "https://index.docker.io/v1/": _auth("hub", "x"),
    }
    configure.write_text(json.dumps({"auths": {**auths, "other.example": broken}}))
    (one,) = docker_credentials(["registry.example:5000/models/digits:1"])
    assert (one.registry, one.username, one.password) == ("registry.example:5000", "me", "se:cret")
    assert "se:cret" not in repr(one)
    assert [found.username for found in docker_credentials(["python:3.11-slim", "me/digits"])] == ["hub"]
    assert docker_credentials(["elsewhere.example/x"]) == ()


def test_no_configuration_is_no_credentials(configure: Path) -> None:
    assert docker_credentials(["registry.example/x"]) == ()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"auths": {"registry.example": {}}, "credsStore": "desktop"}, "docker-credential-desktop"),
        ({"credHelpers": {"registry.example": "ecr-login"}}, "docker-credential-ecr-login"),
        ({"auths": {"registry.example": {**_auth("a", ""), "identitytoken": "tok3n"}}}, "an identity token"),
        ({"auths": {"registry.example": {"auth": "s3cret%"}}}, "docker login"),
        (["s3cret"], "docker login"),
    ],
)
def test_credentials_that_cannot_be_used_are_refused_by_name(
    configure: Path, config: object, told: str
) -> None:
    configure.write_text(json.dumps(config))
    with pytest.raises(InputError, match=told) as caught:
        docker_credentials(["registry.example/models/digits"])
    assert "tok3n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def _image(*options: str | Path) -> int:
    return cli.main(["image", *map(str, options)])


@needs_registry
def test_a_model_image_is_written_as_a_layout_and_a_retry_writes_nothing(
    parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts.write(tmp_path / "servable")
    destination = f"oci-layout:{tmp_path / uuid.uuid4().hex}"
    argv = ("model", "--base", BASE, "--servable", tmp_path / "servable", "--destination", destination)
    assert _image(*argv) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["reference"] == f"{destination}@{first['digest']}"
    assert first["tag"].startswith("model-")
    assert _image(*argv) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["digest"], again["existed"], again["uploaded_bytes"]) == (first["digest"], True, 0)


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--servable", "/nonexistent"], "no servable in"), (["--destination", "UPPER"], "UPPER")],
)
def test_what_cannot_be_built_fails_for_good(
    parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    parts.write(tmp_path / "servable")
    argv = ["--base", "127.0.0.1:9/runtime:1", "--destination", f"oci-layout:{tmp_path / 'out'}"]
    code = _image("model", *argv, "--servable", tmp_path / "servable", "--backend", "oci", *options)
    assert code == cli.EXIT_FAILED
    assert told in capsys.readouterr().err
