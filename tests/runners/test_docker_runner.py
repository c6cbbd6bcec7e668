"""Steps in containers of a real engine: they run, they fail with reasons, and nothing of them outlives its task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.containers import Engine, connect
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.runners import Container, DockerRunner
from airflow_model_deploy.runners.container import LABEL, local_store
from tests.flows.small_onnx import evaluated, write_model

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]


class Lines:
    """A log that remembers."""

    def __init__(self):
        self.lines = []

    def info(self, event, *args):
        self.lines.append(event % args)

    warning = error = info


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image of acting steps: the engine without torch."""
    from airflow_model_deploy.engine.packaging.images import DockerBuilder
    from airflow_model_deploy.engine.packaging.images.contents import driver_spec, package_cache

    spec = driver_spec("python:3.11-slim", package_cache())
    return DockerBuilder(Engine()).build(spec, "local/runner-tests", log=lambda line: None).reference


@pytest.fixture
def runner(image):
    log = Lines()
    return DockerRunner(Engine(), Container(image=image), log=log)


@pytest.fixture
def no_container_left():
    before = containers()
    yield
    assert set(containers()) <= set(before)


def containers():
    return [c["Id"] for c in connect(Engine()).containers(all=True, filters={"label": LABEL})]


def running():
    return [c["Id"] for c in connect(Engine()).containers(filters={"label": LABEL})]


def request(tmp_path, step, spec, inputs=None):
    return StepRequest(step, spec, inputs or {}, f"file://{tmp_path}/store", result="runs/result.json")


def test_a_step_runs_in_a_container_and_its_result_and_log_come_back(tmp_path, runner, no_container_left):
    """Without torch there: a step that needs none, on artifacts that it fetches from the mounted store."""
    write_model(tmp_path / "model.onnx", seed=0)

    def run(step, spec, **inputs):
        artifacts = {role: result.artifact for role, result in inputs.items()}
        return run_request(StepRequest(step, spec, artifacts, f"file://{tmp_path}/store"))

    built, evaluation = evaluated(run, "toy", tmp_path / "model.onnx")
    inputs = {"servable": built.artifact, "evaluation": evaluation.artifact}
    runner.start(request(tmp_path, "prepare", {"target": "docker"}, inputs))
    result = runner.wait()
    assert result.status == "succeeded", result.error
    folder, _ = Store(f"file://{tmp_path}/store").fetch(result.artifact)
    plan = json.loads((folder / "plan.json").read_bytes())
    assert (plan["target"], plan["name"]) == ("docker", "toy")
    # What the container wrote belongs to whoever the task runs as.
    assert {path.stat().st_uid for path in (tmp_path / "store").rglob("*")} == {os.getuid()}


def test_what_a_step_lacks_there_is_told_as_its_failure(tmp_path, runner, no_container_left):
    runner.start(request(tmp_path, "export", {}, {}))
    result = runner.wait()
    assert result.status == "failed"
    assert result.error["permanent"] is True
    assert "was given other inputs" in result.error["message"]


def test_an_image_that_is_not_there_is_refused_by_name(tmp_path):
    runner = DockerRunner(Engine(), Container(image="sha256:" + "0" * 64))
    with pytest.raises(InputError, match=r"image sha256:0000.*not on this engine"):
        runner.start(request(tmp_path, "prepare", {}))


def test_a_local_store_and_an_engine_elsewhere_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="a store that both machines reach"):
        local_store(f"file://{tmp_path}", "tcp://edge-7:2376")
    assert local_store("s3://bucket/store", "tcp://edge-7:2376") is None
    assert local_store(f"file://{tmp_path}/new", "unix:///run/docker.sock") == f"{tmp_path}/new"
    assert (tmp_path / "new").is_dir()  # else the engine would make it, as root


def test_a_folder_that_is_not_there_is_refused_not_made(tmp_path, image):
    runner = DockerRunner(Engine(), Container(image=image, mounts=(f"{tmp_path}/nowhere",)))
    with pytest.raises(InputError, match="nowhere"):
        runner.start(request(tmp_path, "prepare", {}))
    assert not (tmp_path / "nowhere").exists()


def test_an_engine_that_is_not_there_is_named_and_tried_again(tmp_path):
    runner = DockerRunner(Engine("unix:///nowhere.sock"), Container(image="worker"))
    with pytest.raises(UnavailableError, match=r"/nowhere\.sock"):
        runner.start(request(tmp_path, "prepare", {}))
    runner.cancel()  # there is nothing to cancel, and nothing is raised


def test_too_little_memory_is_told_as_such(tmp_path, image, no_container_left):
    runner = DockerRunner(Engine(), Container(image=image, memory_bytes=8 << 20))
    runner.start(request(tmp_path, "prepare", {}))
    result = runner.wait()
    assert result.status == "failed"
    assert "ran out of memory (limit: 8388608 bytes)" in result.error["message"]


# A step whose request never comes waits for it, as a long one would compute.
WAITING = textwrap.dedent(
    """
    import sys, time
    from airflow_model_deploy.engine.containers import Engine, connect
    from airflow_model_deploy.engine.steps import StepRequest
    from airflow_model_deploy.runners import Container, DockerRunner, docker

    docker.first_line = lambda *_: b""
    image, store = sys.argv[1:]
    runner = DockerRunner(Engine(), Container(image=image))
    runner.start(StepRequest("prepare", {}, {}, store, result="runs/result.json"))
    print("started", flush=True)
    time.sleep(60)
    """
)


def test_a_worker_that_is_killed_takes_the_container_with_it(tmp_path, image):
    """By SIGKILL nobody tells the engine anything: the lifeline does."""
    child = subprocess.Popen(
        [sys.executable, "-c", WAITING, image, f"file://{tmp_path}/store"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline().strip() == "started"
        assert len(running()) == 1
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    deadline = time.monotonic() + 10
    while running() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running() == []
    for ended in containers():
        connect(Engine()).remove_container(ended)


def test_cancelling_ends_the_container_while_somebody_waits_for_it(
    tmp_path, runner, monkeypatch, no_container_left
):
    monkeypatch.setattr("airflow_model_deploy.runners.docker.first_line", lambda *_: b"")
    runner.start(request(tmp_path, "prepare", {}))
    threading.Timer(1.0, runner.cancel).start()
    result = runner.wait()
    assert result.error["message"].startswith("the step was cancelled")
    assert result.error["permanent"] is False
