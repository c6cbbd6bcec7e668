"""Requests to a running server: some that are checked against numpy, then many by wrk that are timed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Self

from benchmarks import _serving_model as mlp
from benchmarks._serving_requests import Message

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from benchmarks._serving_process import Running
    from benchmarks._serving_requests import Mode

_CHECKED, _AT_ONCE = 64, 16
_ERRORS = ("connect", "read", "write", "status", "timeout")
_SCRIPT = """
local file = assert(io.open([[{body}]], "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{{"requests":%d,"us":%d,"p50_us":%d,"p99_us":%d,' ..
    '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"""


@dataclass(frozen=True)
class Look:
    """What one run showed: requests a second, latency, CPU time of the server's whole tree a request."""

    rps: float
    p50_us: float
    p99_us: float
    cpu_us: float


def version() -> str:
    """Ask wrk for its own version.

    Raises:
        RuntimeError: there is no wrk.
    """
    path = shutil.which("wrk")
    if path is None:
        raise RuntimeError("wrk isn't on PATH; Debian's package is called wrk")
    told = subprocess.run([path, "-v"], capture_output=True, text=True, check=False).stdout
    return told.partition(" [")[0]


def check(server: Running, mode: Mode) -> None:
    """Ask for different samples, several at once, one and two rows each.

    Raises:
        RuntimeError: an answer isn't numpy's.
    """
    inputs = mlp.samples(_CHECKED)
    asked = [inputs[i : i + 1 + i % 2] for i in range(_CHECKED - 1)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for given, got in zip(asked, pool.map(lambda given: _ask(server, mode, given), asked), strict=True):
            if not mlp.agree(got, mlp.expected(given)):
                raise RuntimeError(f"{mode.name}: {got.tolist()} for {mlp.expected(given).tolist()}")


def _ask(server: Running, mode: Mode, inputs: np.ndarray) -> np.ndarray:
    asked = mode.request(inputs)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", mode.path, asked.body, asked.headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{mode.name}: answered {answer.status}: {body[:500]!r}")
    return mode.outputs(Message(dict(answer.getheaders()), body))


class Connection:
    """One connection that is kept open, with next to no cost of its own: asks for the same sample each time."""

    def __init__(self, server: Running, mode: Mode) -> None:
        message = mode.request(mlp.samples(1))
        headers = {"Host": "localhost", "Content-Length": str(len(message.body)), **message.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.request = f"POST {mode.path} HTTP/1.1\r\n{lines}\r\n".encode() + message.body
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self) -> float:
        """Seconds until the whole answer is there.

        Raises:
            RuntimeError: it isn't 200.
        """
        begin = time.perf_counter()
        self.socket.sendall(self.request)
        answer = self.socket.recv(65536)
        while answer and not _is_whole(answer):
            answer += self.socket.recv(65536)
        taken = time.perf_counter() - begin
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"answered {answer[:500]!r}")
        return taken


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return length is not None and len(body) >= int(length[1])


def script(mode: Mode, folder: Path) -> Path:
    """Write what wrk sends in a mode: one sample."""
    message = mode.request(mlp.samples(1))
    body = folder / f"{mode.name}-{len(message.body)}.body"
    body.write_bytes(message.body)
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in message.headers.items())
    path = body.with_suffix(".lua")
    path.write_text(_SCRIPT.format(body=body, headers=headers), encoding="utf-8")
    return path


def load(server: Running, mode: Mode, lua: Path, connections: int, seconds: int) -> Look:
    """Load a server for some seconds from this process's core.

    Raises:
        RuntimeError: wrk failed, or a request did.
    """
    url = f"http://127.0.0.1:{server.port}{mode.path}"
    before = server.cpu_seconds()
    told = _wrk(url, lua, connections, seconds)
    taken = server.cpu_seconds() - before
    count = told["requests"]
    return Look(count / told["us"] * 1e6, told["p50_us"], told["p99_us"], taken / count * 1e6)


def _wrk(url: str, lua: Path, connections: int, seconds: int) -> dict[str, Any]:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
    done = subprocess.run(
        [*command, "-s", str(lua), url], capture_output=True, text=True, check=True, cwd=lua.parent
    )
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    failed = {name: told[name] for name in _ERRORS if told[name]}
    if failed or not told["requests"]:
        raise RuntimeError(f"{url}: {told['requests']} requests, failed: {failed}")
    return told
