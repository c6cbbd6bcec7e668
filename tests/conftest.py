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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Skip, saying so, what needs a service that isn't there; say what stays together where workers share the tests."""
    if config.pluginmanager.hasplugin("xdist"):
        _group(items)
    needs = {"docker": "DOCKER_HOST", "kubernetes": "KUBECONFIG"}
    for item in items:
        for marker, variable in needs.items():
            if item.get_closest_marker(marker) and not os.environ.get(variable):
                item.add_marker(pytest.mark.skip(reason=f"{variable} is not set"))


def _group(items):
    """A file's tests run in one worker, in order; so do all of the folder that shares one Airflow, and all that use
    the engine: some look at every container there, and at their end they remove images.
    """
    on_engine = {item.path for item in items if item.get_closest_marker("docker")}
    for item in items:
        group = str(item.path.relative_to(TESTS))
        if item.path.is_relative_to(TESTS / "dags"):
            group = "airflow"
        elif item.path in on_engine:
            group = "engine"
        item.add_marker(pytest.mark.xdist_group(group))


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
