"""Runs one server program as a child for the time of a `with` block; knows its start, its end, its memory."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.probing.client import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_POLL_S = 0.02
_TAIL_LINES = 20
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class ServerProcess:
    """A server that is ready.

    Args:
        base_url: its private address.
        pid: the process that serves.
        log: what it writes on stdout and stderr, while the `with` block lasts.
    """

    base_url: str
    pid: int
    log: Path

    def peak_memory_bytes(self) -> int:
        """The most memory resident so far (VmHWM); where /proc lacks it, what is resident now."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return self._resident_now()
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return self._resident_now()

    def last_words(self) -> str:
        """The last lines that it wrote on stdout and stderr."""
        return _tail(self.log)

    def _resident_now(self) -> int:
        import psutil

        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess as e:
            raise UnavailableError("the server process has ended", found=f"pid {self.pid}") from e


@contextmanager
def serve(
    command: list[str],
    *,
    ready_timeout_s: float,
    env: Mapping[str, str] | None = None,
    stop_timeout_s: float = 15.0,
) -> Iterator[ServerProcess]:
    """Start a server program and yield it once it is ready; it's gone when the block is left.

    `--ready-file PATH --lifeline` are appended to `command`. The child's stdin is the lifeline: should this
    process be killed, the pipe closes and the child ends by itself.

    Args:
        command: argv.
        ready_timeout_s: bound for loading and warming the model.
        env: the child's whole environment (default: this process's).
        stop_timeout_s: after SIGTERM, before SIGKILL.

    Raises:
        InputError: there is no such program.
        ProbeError: the program ended before it was ready; carries the last lines that it wrote.
        UnavailableError: it wasn't ready in time; carries them too.
    """
    with tempfile.TemporaryDirectory(prefix="model-server-") as folder:
        log, ready = Path(folder, "log"), Path(folder, "ready.json")
        process = _start([*command, "--ready-file", str(ready), "--lifeline"], log, env)
        try:
            yield _wait_until_ready(process, ready, log, ready_timeout_s)
        finally:
            _end(process, stop_timeout_s)


def _start(command: list[str], log: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    try:
        with log.open("wb") as sink:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
            )
    except OSError as e:
        raise InputError(f"{command[0]} can't be started", found=str(e), wanted="a program") from e


def _wait_until_ready(
    process: subprocess.Popen[bytes], ready: Path, log: Path, timeout_s: float
) -> ServerProcess:
    deadline = time.monotonic() + timeout_s
    while not ready.exists():
        code = process.poll()
        if code is not None:
            raise ProbeError(
                "the server ended before it was ready",
                found=f"exit code {code}",
                wanted="a ready server",
                remedy=f"Its last words: {_tail(log)}",
            )
        if time.monotonic() > deadline:
            raise UnavailableError(
                "the server was not ready in time",
                found=f"{timeout_s:g} s",
                wanted="ready",
                remedy=f"Its last words: {_tail(log)}",
            )
        time.sleep(_POLL_S)
    value = json.loads(ready.read_text(encoding="utf-8"))
    return ServerProcess(f"http://127.0.0.1:{int(value['port'])}", int(value["pid"]), log)


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    process.terminate()  # first, and with the lifeline still held: the server is to drain, not to be cut off
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdin:
            process.stdin.close()


def _tail(log: Path) -> str:
    with log.open("rb") as source:
        source.seek(max(0, log.stat().st_size - _TAIL_BYTES), os.SEEK_SET)
        lines = source.read().decode("utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-_TAIL_LINES:]) or "none"
