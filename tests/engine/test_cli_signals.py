"""The command line as process 1 of a container, to which the kernel gives no signal that it has no handler for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


def test_sigterm_ends_process_1(tmp_path: Path) -> None:
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces of processes here")
    # It waits for a first line that never comes.
    command = [
        *UNSHARE,
        sys.executable,
        "-m",
        "airflow_model_deploy.engine.cli",
        "run",
        "deploy",
        "--lifeline",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path) as process:
        try:
            one = _child_that_listens(psutil.Process(process.pid))
            os.kill(one, signal.SIGTERM)
            assert process.wait(10) == 128 + signal.SIGTERM
        finally:
            process.kill()


def _child_that_listens(parent: psutil.Process) -> int:
    """Return the child once it has a handler for SIGTERM."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for child in parent.children():
            status = dict(
                line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()
            )
            if int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1:
                return child.pid
        time.sleep(0.05)
    raise AssertionError("no handler")
