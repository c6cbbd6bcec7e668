"""The scheduler is killed while a step runs, and another one takes over: the run ends well, with whole artifacts.

The last of this folder's tests, because it takes the shared Airflow's first scheduler away.
"""

from __future__ import annotations

import os
import subprocess
import time

import psutil
import pytest

from airflow_model_deploy.engine.steps.verify import verify
from airflow_server import settings


def schedulers(home):
    """Return the scheduler's processes of one AIRFLOW_HOME, its main process first."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        command = " ".join(process.info["cmdline"] or ())
        if "airflow" in command and "scheduler" in command:
            try:
                if process.environ().get("AIRFLOW_HOME") == str(home):
                    found.append(process)
            except psutil.Error:
                continue
    return sorted(found, key=lambda process: process.info["create_time"])


@pytest.fixture
def another_scheduler(airflow):
    started = []

    def start():
        home = airflow.folder / "home"
        path = f"{airflow.bare.parent}:{os.environ['PATH']}"
        environment = settings(home, airflow.server.port, airflow.dags, {**airflow.more, "PATH": path})
        with (home / "scheduler-2.log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    [airflow.bare, "-m", "airflow", "scheduler"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=home,
                )
            )

    yield start
    for process in started:
        for member in psutil.Process(process.pid).children(recursive=True):
            member.kill()
        process.kill()
        process.wait()


@pytest.mark.timeout(900)
def test_a_run_survives_its_scheduler(airflow, another_scheduler):
    server = airflow.server
    run_id = server.trigger("own_training", {})

    def state(task_id):
        return next(
            (t["state"] for t in server.tasks("own_training", run_id) if t["task_id"] == task_id), None
        )

    deadline = time.monotonic() + 240
    while state("quantize") != "running":
        assert time.monotonic() < deadline, server.tasks("own_training", run_id)
        time.sleep(0.2)
    first = schedulers(airflow.folder / "home")
    assert first
    for process in first:
        process.kill()
    another_scheduler()

    deadline = time.monotonic() + 500
    while (ended := server.run_state("own_training", run_id)) not in ("success", "failed"):
        assert time.monotonic() < deadline, server.tasks("own_training", run_id)
        time.sleep(0.5)
    assert ended == "success", server.tasks("own_training", run_id)
    built = server.result("own_training", run_id, "build")
    assert {a["step"] for a in verify(built["artifact"]["uri"])["artifacts"]} >= {
        "ingest",
        "quantize",
        "build",
    }
