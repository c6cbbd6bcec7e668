"""A registry that asks who is there: its password reaches the registry, and stays nowhere else."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import uuid

import httpx
import pytest

from airflow_model_deploy.engine.containers import Engine, connect
from airflow_model_deploy.engine.steps import StepRequest
from airflow_model_deploy.runners import WorkerRunner
from tests.flows.small_onnx import evaluated, write_model

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

SECRET = "n0t-in-any-layer"  # noqa: S105
BCRYPT = "$2b$05$DcD0J.BQ0QmhJcv8.s/jW.Awt9IMTQtfYY3b3rb/DSt29ZrvUl89a"  # of SECRET


class Lines(list):
    """A log that remembers."""

    def info(self, event, *args):
        self.append(event % args)

    warning = error = info


@pytest.fixture
def guarded(tmp_path):
    """A real registry that lets nobody pass without the password; its address."""
    if not os.environ.get("TESTBED_REGISTRY"):
        pytest.skip("TESTBED_REGISTRY is not set")
    program = shutil.which("docker-registry") or shutil.which("registry")
    if not program:
        pytest.skip("there is no docker-registry on the PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    (tmp_path / "htpasswd").write_text(f"builder:{BCRYPT}\n")
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "auth": {"htpasswd": {"realm": "models", "path": str(tmp_path / "htpasswd")}},
        "http": {"addr": host},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(config))
    server = subprocess.Popen(
        [program, "serve", str(tmp_path / "registry.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(host)
        yield host
    finally:
        server.kill()
        server.wait()


def _wait_for(host):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            assert httpx.get(f"http://{host}/v2/").status_code == 401
            return
        time.sleep(0.05)
    raise TimeoutError(host)


def run(store, lines, step, spec, inputs, connections=None):
    """Run a step as an operator does; returns its result."""
    request = StepRequest(
        step, spec, {k: v.artifact for k, v in inputs.items()}, store, result=f"runs/{uuid.uuid4().hex}.json"
    )
    runner = WorkerRunner(log=lines)
    runner.start(request, connections=connections)
    result = runner.wait()
    assert result.status == "succeeded", result.error
    return result


@pytest.mark.parametrize("backend", [pytest.param("docker", marks=pytest.mark.slow), "oci"])
def test_a_password_is_in_no_layer_history_log_artifact_or_result(backend, guarded, tmp_path):
    store, lines, name = f"file://{tmp_path}/store", Lines(), f"secret-{uuid.uuid4().hex[:8]}"
    write_model(tmp_path / "model.onnx", seed=1)
    built, evaluation = evaluated(
        lambda step, spec, **inputs: run(store, lines, step, spec, inputs), name, tmp_path / "model.onnx"
    )
    plan = run(
        store,
        lines,
        "prepare",
        {"target": "docker", "latency_ms": 2000},
        {"servable": built, "evaluation": evaluation},
    )
    release = run(
        store,
        lines,
        "package",
        {
            "target": "docker",
            "backend": backend,
            "registry": guarded,
            "base_image": f"{os.environ['TESTBED_REGISTRY']}/python:3.11-slim",
        },
        {"servable": built, "plan": plan},
        {"registries": [{"registry": guarded, "username": "builder", "password": SECRET}]},
    )
    image = release.metrics["image"]
    assert image.startswith(f"{guarded}/{name}@sha256:")
    assert httpx.get(f"http://{guarded}/v2/{name}/tags/list", auth=("builder", SECRET)).json()["tags"]

    client = connect(Engine())
    try:
        told = json.dumps([client.inspect_image(image), client.history(image), release.to_json(), lines])
        exported = b"".join(client.get_image(image))
    finally:
        client.remove_image(image, force=True)
    hidden = (SECRET, base64.b64encode(f"builder:{SECRET}".encode()).decode())
    assert not [word for word in hidden if word in told]
    for content in (exported, *(p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file())):
        assert not [word for word in hidden if word.encode() in content]
