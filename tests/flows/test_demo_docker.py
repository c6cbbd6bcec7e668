"""`make demo TARGET=docker`: the reference Dag in a real Airflow, to a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_reference_dag_deploys_to_an_engine():
    registry = os.environ.get("TESTBED_REGISTRY", "")
    done = subprocess.run(
        [sys.executable, "tools/demo.py", "--target", "docker", "--registry", registry],
        cwd=REPOSITORY,
        env={**os.environ, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    report = json.loads((REPOSITORY / "demo" / "report.json").read_text())
    assert report["served"]["matched"] == report["served"]["golden_requests"] == 16
    assert report["verdict"]["status"] == "healthy"
    assert (
        f"The image: {registry}/digits@sha256:" in done.stdout
        if registry
        else "The image: sha256:" in done.stdout
    )
