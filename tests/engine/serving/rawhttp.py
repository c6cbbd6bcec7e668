"""HTTP/1.1 by hand: sends any bytes, reads whatever comes back, and knows when a server keeps silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

PATIENCE = 10.0  # seconds in which any server must have answered


@dataclass(frozen=True)
class Reply:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def tensors(self) -> dict[str, Any]:
        """The flat values of every output, in whatever encoding it came."""
        length = self.headers.get("inference-header-content-length")
        about = json.loads(self.body[: int(length)] if length else self.body)
        rest, found = self.body[int(length) :] if length else b"", {}
        for output in about["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                found[output["name"]] = output["data"]
                continue
            dtype = {"FP32": "<f4", "INT64": "<i8", "INT8": "i1"}[output["datatype"]]
            found[output["name"]] = np.frombuffer(rest[:size], dtype).tolist()
            rest = rest[size:]
        assert not rest, "bytes that belong to no output"
        return found


async def read_reply(reader: asyncio.StreamReader, *, head: bool = False) -> Reply | None:
    """Read one response; None where the connection ends before it."""
    while True:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            partial = getattr(error, "partial", b"")
            assert not partial, f"a response was cut off: {partial!r}"
            return None
        status_line, *lines = raw[:-4].decode("latin-1").split("\r\n")
        status = int(status_line.split(" ")[1])
        if status >= 200:
            break
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
    body = b"" if head or status in (204, 304) else await _body(reader, headers)
    return Reply(status, headers, body)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding") != "chunked":
        return await reader.read()
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(chunks)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(port: int, *data: bytes, seconds: float = PATIENCE) -> Reply | None:
    """Send on a connection of its own; return the first response."""
    async with asyncio.timeout(seconds), connected(port) as (reader, writer):
        for part in data:
            writer.write(part)
        return await read_reply(reader)


def post(body: bytes, path: str = "/v2/models/tiny/infer", headers: Iterable[str] = ()) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return _memory(pid, "VmRSS")


def peak(pid: int) -> int:
    """Bytes of memory that a process ever held at once."""
    return _memory(pid, "VmHWM")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def sample(text: str, name: str, *labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    found = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found if all(label in line for label in labels))


def allow_connections(number: int) -> None:
    """Raise this process's limit of open files, which its children inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number * 2 + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
