"""The worker's runner: lines reach the log, secrets do not leak, another interpreter is used where one is named."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import psutil
import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.steps import StepRequest
from airflow_model_deploy.runners import WorkerRunner

FACTORY = {"path": "toy_model:build"}
DATA = {"loader": {"path": "spying_data:load"}, "version": "1"}

SPY = """
import json, os, sys
from pathlib import Path
import toy_data
def load(split, **options):
    Path(__file__).parent
    report = {
        "environment": dict(os.environ), "argv": sys.argv, "group": os.getpgid(0), "pid": os.getpid(),
        "sockets": [f for f in map(os.path.realpath, map("/proc/self/fd/{}".format, os.listdir("/proc/self/fd")))
                    if "socket" in f],
        "executable": sys.executable, "path": sys.path,
    }
    Path(os.environ["SPY_REPORT"]).write_text(json.dumps(report))
    print("loading", split)
    return toy_data.load(split)
"""


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def log():
    logger = logging.getLogger("test.runner")
    logger.setLevel(logging.INFO)
    handler = Lines()
    logger.addHandler(handler)
    yield logger, handler.lines
    logger.removeHandler(handler)


@pytest.fixture
def request_(tmp_path, user_code, monkeypatch):
    (user_code / "spying_data.py").write_text(SPY)
    monkeypatch.setenv("SPY_REPORT", str(tmp_path / "spy.json"))
    spec = {"name": "toy", "factory": FACTORY, "fit": {"path": "toy_model:fit"}, "data": DATA, "epochs": 1}
    return StepRequest("train", spec, {}, f"file://{tmp_path}/store", result="runs/1/result.json")


def test_a_step_runs_apart_and_its_result_and_lines_come_back(request_, tmp_path, log, monkeypatch):
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "secret-1")
    monkeypatch.setenv("AIRFLOW_CONN_REGISTRY", "secret-2")
    logger, lines = log
    runner = WorkerRunner(log=logger)
    handle = runner.start(request_, store_options={"auto_mkdir": True})
    result = runner.wait()
    assert result.status == "succeeded", result.error
    assert "loading train" in lines
    spied = json.loads((tmp_path / "spy.json").read_text())
    assert handle == {"pid": spied["pid"]}
    assert spied["group"] == os.getpgid(0)  # what ends the task's group ends the step
    assert "secret" not in json.dumps([spied["environment"], spied["argv"]])
    assert "auto_mkdir" not in json.dumps([spied["environment"], spied["argv"]])
    assert spied["sockets"] == []
    assert "/artifacts/sha256-" in spied["path"][0]  # the user code as it was published, not as it lies about
    assert not [line for line in lines if "Fatal" in line]
    assert not psutil.pid_exists(spied["pid"])


def test_a_failed_step_is_a_result_not_an_exception(request_, log):
    broken = StepRequest(
        "train", {**request_.spec, "epochs": 0}, {}, request_.store, result="runs/2/result.json"
    )
    runner = WorkerRunner(log=log[0])
    runner.start(broken)
    result = runner.wait()
    assert result.status == "failed"
    assert "epochs" in result.error["message"]
    assert result.error["permanent"] is True


def test_a_step_that_dies_without_a_word_may_be_retried(request_, user_code, log):
    (user_code / "spying_data.py").write_text("import os\ndef load(split):\n    os._exit(9)\n")
    runner = WorkerRunner(log=log[0])
    runner.start(request_)
    result = runner.wait()
    assert result.status == "failed"
    assert "exit code 9" in result.error["message"]
    assert result.error["permanent"] is False


def test_resuming_starts_anew_because_a_subprocess_never_outlives_its_task(request_, log):
    result = WorkerRunner(log=log[0]).resume({"pid": 1}, request_)
    assert result.status == "succeeded", result.error


def test_an_interpreter_that_is_not_there_is_named(request_):
    with pytest.raises(InputError, match=r"/no/such/python.*Correct `python`"):
        WorkerRunner(python="/no/such/python").start(request_)


def test_the_named_interpreter_runs_the_step(request_, tmp_path, log):
    link = tmp_path / "venv" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to(sys.executable)
    (tmp_path / "venv" / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (tmp_path / "venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    runner = WorkerRunner(python=str(link), log=log[0])
    runner.start(request_)
    assert runner.wait().status == "succeeded"
    assert json.loads((tmp_path / "spy.json").read_text())["executable"] == str(link)
