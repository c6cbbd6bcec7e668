"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
USER_CODE = TESTS / "user_code"

# Airflow reads these when it is first imported; no test may touch the user's own installation.
_HOME = os.environ.setdefault("AIRFLOW_HOME", str(TESTS / ".airflow"))
# One of several processes that run the tests side by side; this file is imported twice, by two names.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if _WORKER and Path(_HOME).name != _WORKER:
    os.environ["AIRFLOW_HOME"] = str(Path(_HOME, _WORKER))
os.environ.setdefault("AIRFLOW__CORE__UNIT_TEST_MODE", "True")
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")


# What workers must not share between them, by the beginning of its files' names: one Airflow for a whole folder, and
# the Docker engine, where some tests look at every container and remove images at their end.
TOGETHER = {
    "airflow": ("tests/dags/",),
    "engine": (
        "tests/engine/containers/",
        "tests/engine/deployment/test_docker",
        "tests/engine/deployment/test_places",
        "tests/engine/packaging/test_",
        "tests/flows/test_demo_",  # one Airflow, below demo/
        "tests/flows/test_docker_engine",
        "tests/flows/test_registry_secrets",
        "tests/runners/",
    ),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the tests of a file to one worker, in their order; so with all that must stay together."""
    if config.getoption("dist") == "worksteal":
        return None  # asked for where tests share nothing
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            groups = (name for name, starts in TOGETHER.items() if nodeid.startswith(starts))
            return next(groups, super()._split_scope(nodeid))

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """Skip, saying so, what needs a service that isn't there."""
    needs = {"docker": "DOCKER_HOST", "kubernetes": "KUBECONFIG"}
    for item in items:
        for marker, variable in needs.items():
            if item.get_closest_marker(marker) and not os.environ.get(variable):
                item.add_marker(pytest.mark.skip(reason=f"{variable} is not set"))


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """A copy of the tests' own models and data on the Python path, free to be changed by the test."""
    folder = tmp_path / "user_code"
    shutil.copytree(USER_CODE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield folder
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)
