from __future__ import annotations

import shutil
import socket

import pytest

from tests.conftest import USER_CODE
from tests.hardening import flow


@pytest.fixture(scope="session")
def hardening_code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hardening-code")
    shutil.copytree(USER_CODE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "toy_pausing.py").write_text(flow.PAUSING)
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, hardening_code):
    """Every stage, run once; tests work on copies."""
    return flow.run_all(tmp_path_factory.mktemp("undisturbed"), hardening_code)


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
