"""A local port whose connections end at a server inside a container, through the engine's API alone.

Each connection is one program inside the container (`model_server.tunnel`) that carries it over its standard
streams: it needs no published port and no network, and works wherever the engine is.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers.exec_stream import STDOUT, ExecStream
from airflow_model_deploy.engine.errors import ModelDeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import APIClient

_CHUNK = 1 << 18
_JOIN_S = 10.0


@contextmanager
def tunnel(
    client: APIClient,
    container: str,
    port: int = 8080,
    *,
    wait_s: float = 0.0,
    log: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Yield "http://127.0.0.1:<free port>", a way to the port inside the container while the block lasts.

    A connection costs the start of a small program inside, so a client does well to keep it alive. When the
    block is left, every connection is closed and its program inside ends.

    Args:
        client: of the engine.
        container: name or id of one that runs an image of ours.
        port: where its server listens.
        wait_s: how long a connection waits inside for the server to listen.
        log: takes what went wrong with a connection, whose client only sees it closed.
    """
    bridge = _Bridge(client, container, port, wait_s, log)
    try:
        yield f"http://127.0.0.1:{bridge.port}"
    finally:
        bridge.close()


class _Bridge:
    def __init__(
        self, client: APIClient, container: str, port: int, wait_s: float, log: Callable[[str], None] | None
    ) -> None:
        self._client, self._container, self._log = client, container, log
        # -S: what `site` would set up isn't needed, and it's most of the time to start.
        self._argv = ["python3", "-S", "-m", "model_server.tunnel", str(port), f"{wait_s:g}"]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._closing = False
        self._open: set[_Connection] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept, "accept")

    def close(self) -> None:
        self._closing = True
        # Wakes the thread that accepts; closing the listener alone doesn't.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.close()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                local, _ = self._listener.accept()
            except OSError:
                return
            if self._closing:
                local.close()
                return
            self._threads = [t for t in self._threads if t.is_alive()]
            self._start(self._carry, "connection", local)

    def _start(self, target: Callable[..., None], name: str, *arguments: object) -> None:
        thread = threading.Thread(target=target, name=f"tunnel-{name}", args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _carry(self, local: socket.socket) -> None:
        local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with self._lock:  # the client library's connections aren't made for threads that race
                stream = ExecStream(self._client, self._container, self._argv)
        except ModelDeployError as e:
            self._tell(str(e))
            local.close()
            return
        connection = _Connection(local, stream)
        with self._lock:
            self._open.add(connection)
        if self._closing:
            connection.close()
        words = connection.carry()
        connection.close()
        with self._lock:
            self._open.discard(connection)
        if words:
            self._tell(words)

    def _tell(self, words: str) -> None:
        if self._log is not None and not self._closing:
            self._log(f"tunnel to {self._container[:12]}: {words}")


class _Connection:
    """A local connection and the program inside that carries it."""

    def __init__(self, local: socket.socket, stream: ExecStream) -> None:
        self._local, self._stream = local, stream

    def carry(self) -> str:
        """Copy both ways until both have ended; returns what the program said on stderr."""
        up = threading.Thread(target=self._requests, name="tunnel-up", daemon=True)
        up.start()
        words: list[bytes] = []
        with contextlib.suppress(OSError):  # the local side has left
            while (piece := self._stream.receive()) is not None:
                stream, data = piece
                if stream == STDOUT:
                    self._local.sendall(data)
                else:
                    words.append(data)
        self.close()
        up.join(_JOIN_S)
        return b"".join(words).decode("utf-8", errors="replace").strip()

    def close(self) -> None:
        """End both; whoever waits on them wakes."""
        with contextlib.suppress(OSError):
            self._local.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self._local.close()

    def _requests(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._local.recv(_CHUNK):
                self._stream.send(data)
        self._stream.finish()
