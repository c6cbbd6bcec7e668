from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.errors import UnavailableError
from airflow_model_deploy.engine.probing import Client, ProbeError, serve

# Stands in for a server that misbehaves: says that it's ready, then does as the test needs.
READY = (
    "import json, os, signal, sys, time\n"
    "path = sys.argv[sys.argv.index('--ready-file') + 1]\n"
    "ready = lambda: (open(path + '.tmp', 'w').write(json.dumps({'pid': os.getpid(), 'port': 9})),"
    " os.rename(path + '.tmp', path))\n"
)

if TYPE_CHECKING:
    from tests.engine.served import Served


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_server_lives_as_long_as_the_block(command: list[str]) -> None:
    with serve(command, ready_timeout_s=60) as server:
        with Client(server.base_url, "affine") as client:
            assert client.ready()
        assert not _gone(server.pid)
    assert _gone(server.pid)


def test_it_ends_with_the_block_that_fails(command: list[str]) -> None:
    with pytest.raises(KeyError), serve(command, ready_timeout_s=60) as server:
        raise KeyError
    assert _gone(server.pid)


def test_peak_memory_is_the_servers(served: Served) -> None:
    peak = served.process.peak_memory_bytes()
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) * 1024
    assert 10_000_000 < resident <= peak + 1_000_000


def test_a_program_that_dies_is_quoted() -> None:
    code = "import sys; print('cannot read model.onnx', file=sys.stderr); sys.exit(3)"
    with (
        pytest.raises(ProbeError, match=r"(?s)exit code 3.*cannot read model\.onnx"),
        serve([sys.executable, "-c", code], ready_timeout_s=30),
    ):
        pass


def test_a_program_that_is_never_ready_is_ended_in_time() -> None:
    start = time.monotonic()
    with (
        pytest.raises(UnavailableError, match=r"(?s)not ready in time.*still loading"),
        serve(
            [sys.executable, "-u", "-c", "import time; print('still loading'); time.sleep(60)"],
            ready_timeout_s=1,
        ),
    ):
        pass
    assert time.monotonic() - start < 10


def test_a_program_that_ignores_sigterm_is_killed() -> None:
    code = READY + "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(60)"
    with serve([sys.executable, "-c", code], ready_timeout_s=30, stop_timeout_s=0.3) as server:
        pass
    assert _gone(server.pid)


def test_the_server_ends_with_a_parent_that_is_killed(command: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from airflow_model_deploy.engine.probing import serve\n"
        "with serve(sys.argv[2:], ready_timeout_s=60) as server:\n"
        "    Path(sys.argv[1]).write_text(str(server.pid)); time.sleep(60)\n"
    )
    note = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", code, str(note), *command])
    try:
        _wait(lambda: note.exists() and note.read_text() != "", 30)
        pid = int(note.read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _wait(lambda: _gone(pid) or _zombie(pid), 15)


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _wait(condition: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
