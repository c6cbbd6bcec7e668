"""A model on a Docker engine, by the steps: packaged as an image, blessed, deployed, replaced, watched, rolled back."""

from __future__ import annotations

import os
import socket
import uuid

import numpy as np
import pytest

from airflow_model_deploy.engine.containers import Engine, connect
from airflow_model_deploy.engine.probing import Client
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.engine.steps.service import service_status, stop_service
from tests.flows.small_onnx import evaluated, write_model

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

BASE = "python:3.11-slim"


class DockerFlow:
    """Takes ONNX files to releases, each below its own stages, on one store."""

    def __init__(self, folder, registry):
        self.folder, self.store, self.registry = folder, f"file://{folder}/store", registry
        self.name = f"flow-{uuid.uuid4().hex[:8]}"

    def run(self, step, spec, connections=None, **inputs):
        request = StepRequest(step, spec, {k: v.artifact for k, v in inputs.items()}, self.store)
        result = run_request(request, connections=connections)
        assert result.status == "succeeded", result.error
        return result

    def packaged(self, seed, **spec):
        source = self.folder / f"model-{seed}.onnx"
        weights = write_model(source, seed)
        built, evaluation = evaluated(self.run, self.name, source)
        plan = self.run(
            "prepare", {"target": "docker", "latency_ms": 1000}, servable=built, evaluation=evaluation
        )
        spec = {"target": "docker", "base_image": BASE, "registry": self.registry, **spec}
        return self.run("package", spec, servable=built, plan=plan), weights


@pytest.fixture
def flow(tmp_path):
    registry = os.environ.get("TESTBED_REGISTRY")
    if not registry:
        pytest.skip("TESTBED_REGISTRY is not set")
    flow = DockerFlow(tmp_path, f"{registry}/flow-tests")
    yield flow
    stop_service(None, flow.name, place="docker")
    client = connect(Engine())
    for container in client.containers(all=True, filters={"label": f"io.model-deploy.service={flow.name}"}):
        client.remove_container(container["Id"], force=True)
    for volume in client.volumes(filters={"name": flow.name})["Volumes"] or []:
        client.remove_volume(volume["Name"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url, name, weights):
    x = np.random.default_rng(7).standard_normal((3, 8)).astype(np.float32)
    with Client(url, name) as client:
        found = client.infer({"x": x})["y"]
    np.testing.assert_allclose(found, np.maximum(x @ weights, 0), rtol=1e-5, atol=1e-6)


def test_two_releases_and_the_way_back(flow):
    first, old = flow.packaged(1)
    assert first.format == "image"
    assert first.details["matched"] == first.details["golden_requests"] == 16
    assert first.metrics["image"].startswith(f"{flow.registry}/{flow.name}@sha256:")
    port = free_port()
    place = {"target": "docker", "port": port}
    deployed = flow.run("deploy", place, release=first)
    url = deployed.details["url"]
    assert deployed.details["golden"]["matched"] == 16
    answers(url, flow.name, old)

    # The same again changes nothing, neither in the registry nor on the engine.
    again, _ = flow.packaged(1)
    assert again.artifact == first.artifact
    assert again.details["existed"] is True
    assert flow.run("deploy", place, release=again).details["changed"] is False

    second, new = flow.packaged(2)
    replaced = flow.run("deploy", place, release=second)
    assert replaced.details["previous"] == deployed.details["revision"]
    answers(url, flow.name, new)
    watched = flow.run("monitor", {"target": "docker", "window_s": 2, "interval_s": 0.05}, release=second)
    assert watched.details["verdict"]["status"] == "healthy", watched.details["verdict"]

    back = flow.run("rollback", {"name": flow.name, "target": "docker"})
    assert back.details["revision"] == deployed.details["revision"]
    answers(url, flow.name, old)
    assert service_status(None, flow.name, place="docker")["live"] == deployed.details["revision"]


@pytest.mark.slow
def test_without_a_daemon_the_image_is_built_all_the_same(flow):
    """The builder without an engine makes the image; the engine is asked to bless it only."""
    registry = os.environ["TESTBED_REGISTRY"]
    release, weights = flow.packaged(3, backend="oci", base_image=f"{registry}/python:3.11-slim")
    assert release.details["builder"] == "oci"
    deployed = flow.run("deploy", {"target": "docker", "port": free_port()}, release=release)
    answers(deployed.details["url"], flow.name, weights)
