"""`make demo TARGET=kubernetes`: three releases by the reference Dag, in a real Airflow, to a real cluster."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(1200)]


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/demo.py", "--target", "kubernetes", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_canary_takes_over_and_a_bad_release_is_sent_back():
    registry = os.environ.get("TESTBED_REGISTRY")
    if not registry:
        pytest.skip("no TESTBED_REGISTRY: needs a registry that the nodes pull from")
    done = demo("--registry", registry, "--namespace", f"model-deploy-demo-{secrets.token_hex(3)}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "✗" not in done.stdout
    report = json.loads((REPOSITORY / "demo" / "report.json").read_text())
    rollouts = report["rollouts"]
    assert [one["result"] for one in rollouts] == ["promoted", "promoted", "rolled back"]
    assert [phase["status"] for phase in rollouts[1]["phases"]] == ["pass", "pass", "pass"]
    failing = rollouts[2]["phases"][-1]
    assert failing["status"] == "fail"
    assert failing["canary"]["errors"] > 0
    assert failing["stable"]["errors"] == 0
    assert report["served"] is None
    page = (REPOSITORY / "demo" / "report.html").read_text()
    assert "Failed requests" in page


@pytest.mark.parametrize(
    ("arguments", "environment", "missing"),
    [
        ((), {}, "no registry is named. Set REGISTRY"),
        (("--registry", "localhost:1"), {"KUBECONFIG": "/nowhere"}, "no Kubernetes cluster answers"),
        (("--registry", "localhost:1", "--namespace", "kube-system"), {}, "is not the demo's"),
    ],
)
def test_what_is_missing_is_named(arguments, environment, missing):
    done = demo(*arguments, **environment)
    assert (done.returncode, missing in done.stdout) == (1, True), done.stdout + done.stderr
