"""One real Airflow for the tests of this folder: its interpreter has no torch, its steps run in one without Airflow."""

from __future__ import annotations

import shutil
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from tests.conftest import REPOSITORY, TESTS, USER_CODE
from tests.linked_venvs import ENGINE_ONLY, airflow_distributions, linked_venv

sys.path.insert(0, str(REPOSITORY / "tools"))

from airflow_server import running_airflow

OWN_DAGS = ("between_tasks", "long_training", "mapped", "own_training", "short_patience")


@pytest.fixture(scope="session")
def airflow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("airflow")
    dags = folder / "dags"
    shutil.copytree(REPOSITORY / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    for source in (*(TESTS / "dags" / "own_dags").glob("*.py"), *USER_CODE.glob("*.py")):
        shutil.copy(source, dags)
    engine = linked_venv(folder / "engine", without=airflow_distributions())
    bare = linked_venv(folder / "bare", without=ENGINE_ONLY)
    more = {
        "AIRFLOW__MODEL_DEPLOY__STORE": f"file://{folder}/store",
        "AIRFLOW__MODEL_DEPLOY__HOST_ROOT": f"{folder}/host",
        "AIRFLOW__MODEL_DEPLOY__PYTHON": str(engine),
        "ENGINE_PYTHON": str(engine),
        "AIRFLOW__MODEL_DEPLOY__REPORT_URL": "https://reports.example/{dag_id}/{run_id}/report.html",
        "OWN_DAGS_OUTPUT": str(folder),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    }
    with running_airflow(
        folder / "home", dags=dags, dag_ids=("model_deploy", *OWN_DAGS), more=more, python=str(bare)
    ) as server:
        yield SimpleNamespace(server=server, folder=folder, engine=engine, bare=bare, dags=dags, more=more)
    deadline = time.monotonic() + 15  # the kernel may take a moment to end what was killed
    while (left := running_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "processes were left running"


def running_in(folder):
    """The command lines of processes that name a folder, which is this worker's own; the dead have none."""
    found = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [command for command in found if any(f"{folder}/" in word for word in command)]
