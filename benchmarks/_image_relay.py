"""Counts what passes between a client and a registry: a relay on loopback that looks into nothing."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 18


@dataclass
class Relay:
    """A running relay.

    Args:
        port: where it listens, on 127.0.0.1.
        counts: bytes so far, "up" to the registry and "down" from it.
    """

    port: int
    counts: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        """Pass bytes on until the source ends."""
        try:
            while piece := source.recv(_PIECE):
                with self._lock:
                    self.counts[direction] += len(piece)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def relay(registry: str) -> Iterator[Relay]:
    """Relay a free port to a registry until the block ends."""
    host, _, port = registry.partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    running = Relay(listener.getsockname()[1])

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            upstream = socket.create_connection((host, int(port or 80)))
            for pair in ((client, upstream, "up"), (upstream, client, "down")):
                threading.Thread(target=running.pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        listener.close()
