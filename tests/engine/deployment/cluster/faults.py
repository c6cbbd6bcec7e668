"""Calls that fail when a test wants it, and a way to an API server that can be cut and mended."""

from __future__ import annotations

import contextlib
import copy
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


class Flaky(Cluster):
    """Counts its calls, and lets some of them fail."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls: list[str] = []
        self.before: list[Exception] = []
        self.after: list[Exception] = []

    def _send(self, method: str, path: str, **what: Any) -> Any:
        self.calls.append(f"{method} {path}")
        if self.before:
            raise self.before.pop(0)
        answer = super()._send(method, path, **what)
        if self.after:
            raise self.after.pop(0)
        return answer


class Way:
    """A loopback port that leads to an address while it isn't cut."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port = 0
        self.mend()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def cut(self) -> None:
        """Close the port and every connection."""
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        for side in self._open:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._open, self._threads = [], []

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._address, 5)
            far.settimeout(None)
            self._open += [near, far]
            self._start(self._copy, near, far)
            self._start(self._copy, far, near)

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


@contextmanager
def cuttable(kubeconfig: dict[str, Any]) -> Iterator[tuple[Way, dict[str, Any]]]:
    """Yield a way to the kubeconfig's only server, and the kubeconfig that goes over it."""
    through = copy.deepcopy(kubeconfig)
    cluster = through["clusters"][0]["cluster"]
    server = urlsplit(cluster["server"])
    way = Way((str(server.hostname), int(server.port or 443)))
    cluster |= {"server": f"https://127.0.0.1:{way.port}", "tls-server-name": server.hostname}
    try:
        yield way, through
    finally:
        way.cut()
