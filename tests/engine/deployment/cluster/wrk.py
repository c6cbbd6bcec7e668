"""The load generator `wrk` on a model, held to a rate, and what it counted."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.engine.serving.servables import infer_body

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCRIPT = """
wrk.method = "POST"
wrk.body = [[%s]]
function delay() return %d end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "seconds": %%.3f, "connect": %%d, "read": %%d, "write": %%d, "status": %%d, "timeout": %%d, '
    .. '"p50_ms": %%.3f, "p99_ms": %%.3f, "max_ms": %%.3f}\\n',
    summary.requests, summary.duration / 1e6, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""
_ERRORS = ("connect", "read", "write", "status", "timeout")


@dataclass(frozen=True)
class WrkResult:
    """What wrk counted.

    Args:
        requests: that were answered, whatever the answer.
        seconds: how long it asked.
        errors: by kind: connect, read, write, status (400 and more), timeout; only those that happened.
        p50_ms: of the answers; so are the next two.
    """

    requests: int
    seconds: float
    errors: dict[str, int]
    p50_ms: float
    p99_ms: float
    max_ms: float


class Wrk:
    """A running wrk."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stop(self) -> WrkResult:
        """End it early, and return what it counted."""
        self._process.send_signal(signal.SIGINT)
        return self.result()

    def result(self) -> WrkResult:
        """Wait for the end, and return what it counted."""
        said, _ = self._process.communicate()
        assert self._process.returncode == 0, said
        counted = json.loads(said.splitlines()[-1])
        errors = {kind: counted.pop(kind) for kind in _ERRORS}
        return WrkResult(errors={kind: n for kind, n in errors.items() if n}, **counted)


@contextlib.contextmanager
def wrk(
    address: str,
    folder: Path,
    *,
    seconds: int,
    connections: int = 4,
    rate: float = 200.0,
    timeout_s: int = 10,
    rows: list[list[float]] | None = None,
    model: str = "tiny",
) -> Iterator[Wrk]:
    """Ask over kept connections for so long, at `rate` requests a second or fewer; it is ended with the block."""
    script = folder / "wrk.lua"
    body = json.dumps(infer_body(rows or [[1.0, 2.0, 3.0, 4.0]]))
    script.write_text(_SCRIPT % (body, max(1, round(1000 * connections / rate))))
    url = f"http://{address}/v2/models/{model}/infer"
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        f"--timeout={timeout_s}s",
        "-s",
        str(script),
        url,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield Wrk(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
