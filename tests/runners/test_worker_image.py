"""The worker image: what computes there computes the same as on the worker."""

from __future__ import annotations

import logging

import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.containers import Engine
from airflow_model_deploy.engine.packaging.images import DockerBuilder
from airflow_model_deploy.engine.packaging.images.contents import package_cache, worker_spec
from airflow_model_deploy.engine.steps import StepRequest, publish_code, run_request
from airflow_model_deploy.engine.steps.registry import get_step
from airflow_model_deploy.engine.steps.spec import parse_spec
from airflow_model_deploy.runners import Container, DockerRunner

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

SPEC = {
    "name": "toy",
    "factory": {"path": "toy_model:build", "options": {"width": 64}},
    "fit": {"path": "toy_model:fit"},
    "data": {"loader": {"path": "toy_data:load"}, "fingerprint": {"path": "toy_data:fingerprint"}},
    "epochs": 3,
}


def test_a_model_is_trained_and_exported_in_containers_from_code_in_the_store(tmp_path, user_code):
    spec = worker_spec("python:3.11-slim", package_cache())
    image = DockerBuilder(Engine()).build(spec, "local/worker-tests", log=logging.getLogger().info)
    store = Store(f"file://{tmp_path}/store")

    def run(step, spec, inputs):
        code = publish_code(store, parse_spec(get_step(step).spec, spec, step=step))
        request = StepRequest(step, spec, inputs, store.url, code=code, result=f"runs/{step}.json")
        runner = DockerRunner(Engine(), Container(image=image.reference, cpus=1))
        runner.start(request)
        result = runner.wait()
        assert result.status == "succeeded", result.error
        return result

    trained = run("train", SPEC, {})
    data = {"data": SPEC["data"]}
    quantized = run("quantize", {"mode": "dynamic", **data}, {"model": trained.artifact})
    assert quantized.metrics["quality"] > 0.5
    # The same request on the worker is found: the same key, so the same code, data and versions.
    here = run_request(StepRequest("train", SPEC, {}, store.url))
    assert here.cached
    assert here.artifact == trained.artifact
