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
os.environ.setdefault("AIRFLOW_HOME", str(TESTS / ".airflow"))
os.environ.setdefault("AIRFLOW__CORE__UNIT_TEST_MODE", "True")
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")


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
