"""The three standard streams of a program in a container, started there or the container's own; no protocol."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers.engine import engine_errors
from airflow_model_deploy.engine.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient

STDOUT, STDERR = 1, 2
_HEADER = struct.Struct(">BxxxL")  # stream, then the length of what follows
_CHUNK = 1 << 18
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ContainerStream:
    """A program's streams over the connection that the engine hands over for them.

    One thread may send while another receives. Neither waits longer than until `close`.

    Args:
        raw: what the client library returns for a socket.
    """

    def __init__(self, raw: Any) -> None:
        self._response = raw._response  # noqa: SLF001 - docker-py keeps it there, so that it stays open
        self._socket: socket.socket = getattr(raw, "_sock", raw)
        self._socket.setblocking(False)
        # TLS allows no reading and writing at the same time; without TLS the lock costs nothing.
        self._lock = threading.Lock()
        self._ahead = _buffered(self._response)
        self._left, self._stream = 0, STDOUT

    def send(self, data: bytes) -> None:
        """Write to its standard input; OSError where it or the engine is gone."""
        rest = memoryview(data)
        while rest:
            try:
                with self._lock:
                    rest = rest[self._socket.send(rest) :]
            except _BLOCKED:
                self._wait(select.POLLOUT)

    def finish(self) -> None:
        """End its standard input; it may still write."""
        with contextlib.suppress(OSError):
            # Not the TLS socket's own shutdown: that would end reading as well.
            socket.socket.shutdown(self._socket, socket.SHUT_WR)

    def receive(self) -> tuple[int, bytes] | None:
        """The next piece of a stream (STDOUT or STDERR), or None at the end of both."""
        while not self._left:
            header = b""
            while len(header) < _HEADER.size:
                piece = self._read(_HEADER.size - len(header))
                if not piece:
                    return None
                header += piece
            self._stream, self._left = _HEADER.unpack(header)
        data = self._read(min(self._left, _CHUNK))
        if not data:
            return None
        self._left -= len(data)
        return self._stream, data

    def close(self) -> None:
        """Drop the connection; the program sees the end of its standard input. Wakes who sends or receives."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._response.close()
        with contextlib.suppress(OSError):
            self._socket.close()

    def _read(self, size: int) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        while True:
            try:
                with self._lock:
                    return self._socket.recv(size)
            except _BLOCKED:
                self._wait(select.POLLIN)
            except OSError:  # reset, or closed by us: the end either way
                return b""

    def _wait(self, event: int) -> None:
        number = self._socket.fileno()
        if number < 0:
            raise OSError("closed")
        poll = select.poll()
        poll.register(number, event)
        # Bounded: TLS may have read what the other thread waits for.
        poll.poll(1000)


class ExecStream(ContainerStream):
    """The streams of a program that is started inside a running container."""

    def __init__(self, client: APIClient, container: str, argv: Sequence[str]) -> None:
        """Start it.

        Raises:
            InputError: the container doesn't run, or is gone.
            UnavailableError: the engine doesn't answer.
        """
        with engine_errors(f"{argv[0]} in container {container}"):
            self.exec_id = str(client.exec_create(container, list(argv), stdin=True)["Id"])
            super().__init__(client.exec_start(self.exec_id, socket=True))
        self._client = client

    def exit_code(self, timeout_s: float = 5.0) -> int | None:
        """Its exit code; None while it still runs after the timeout."""
        deadline = time.monotonic() + timeout_s
        while True:
            with engine_errors(f"exec {self.exec_id}"):
                state: dict[str, Any] = self._client.exec_inspect(self.exec_id)
            if not state["Running"] and state["ExitCode"] is not None:
                return int(state["ExitCode"])
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)


@dataclass(frozen=True)
class ExecResult:
    """How a program inside a container ended."""

    exit_code: int
    stdout: bytes
    stderr: str


def run_inside(
    client: APIClient, container: str, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 30.0
) -> ExecResult:
    """Run a short program inside a running container and wait for it.

    Raises:
        InputError: the container doesn't run, or is gone.
        UnavailableError: the engine doesn't answer, or the program isn't done in time.
    """
    stream = ExecStream(client, container, argv)
    late = threading.Timer(timeout_s, stream.close)
    # Apart from reading: a program that answers while it is asked would otherwise block both sides.
    sender = threading.Thread(target=_send_all, args=(stream, stdin), daemon=True)
    said: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    deadline = time.monotonic() + timeout_s
    late.start()
    sender.start()
    try:
        while (piece := stream.receive()) is not None:
            said.setdefault(piece[0], []).append(piece[1])
        code = stream.exit_code() if time.monotonic() < deadline else None
    finally:
        late.cancel()
        stream.close()
        sender.join()
        late.join()
    if code is None:
        raise UnavailableError(
            f"{argv[0]} in container {container}", found=f"not done after {timeout_s:g} s", wanted="an end"
        )
    words = b"".join(said[STDERR]).decode("utf-8", errors="replace").strip()
    return ExecResult(code, b"".join(said[STDOUT]), words)


def _send_all(stream: ExecStream, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the program may end without having read it all
        stream.send(data)
    stream.finish()


def _buffered(response: Any) -> bytes:
    """What the HTTP library read beyond the head of the engine's answer: the program may speak first."""
    reader = response.raw._fp.fp  # noqa: SLF001 - no public way to it
    try:
        return bytes(reader.peek(1)) if reader is not None else b""
    except OSError:  # nothing there yet: the socket doesn't block
        return b""
