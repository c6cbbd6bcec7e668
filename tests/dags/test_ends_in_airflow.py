"""How a running task can end in a real Airflow: killed, marked failed, out of time. Nothing of its step is left."""

from __future__ import annotations

import time

import psutil
import pytest

pytestmark = pytest.mark.timeout(600)


def step_processes(engine):
    """The processes of training steps that run now, by the interpreter that only this Airflow uses."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if command[:1] == [str(engine)] and "train" in command and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def until(condition, what, *, within):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(0.1)
    return within - (deadline - time.monotonic())


def state(server, dag_id, run_id):
    return next((task["state"] for task in server.tasks(dag_id, run_id) if task["task_id"] == "train"), None)


@pytest.fixture
def training(airflow):
    """Start a run of a Dag and wait until its step trains; returns the run's id and the step's first process."""

    def start(dag_id):
        run_id = airflow.server.trigger(dag_id, {})
        until(lambda: step_processes(airflow.engine), "the step runs", within=180)
        time.sleep(4)  # into the training
        top = min(step_processes(airflow.engine), key=lambda process: process.create_time())
        return run_id, top

    yield start
    until(lambda: not step_processes(airflow.engine), "no process of a step is left", within=30)


def test_a_killed_task_is_seen_at_once_and_its_step_is_gone(airflow, training):
    run_id, step = training("long_training")
    step.parent().kill()
    until(lambda: not step_processes(airflow.engine), "the step has ended", within=5)
    until(lambda: state(airflow.server, "long_training", run_id) == "failed", "Airflow saw it", within=10)


def test_a_task_that_is_marked_failed_ends_its_step(airflow, training):
    run_id, _ = training("long_training")
    path = f"/dags/long_training/dagRuns/{run_id}/taskInstances/train"
    airflow.server.call("PATCH", path, {"new_state": "failed"})
    # Airflow tells the task with its next heartbeat.
    until(lambda: not step_processes(airflow.engine), "the step has ended", within=30)
    assert state(airflow.server, "long_training", run_id) == "failed"


def test_a_task_that_is_out_of_time_ends_its_step(airflow, training):
    run_id, _ = training("short_patience")
    until(lambda: state(airflow.server, "short_patience", run_id) == "failed", "out of time", within=40)
    until(lambda: not step_processes(airflow.engine), "the step has ended", within=10)
