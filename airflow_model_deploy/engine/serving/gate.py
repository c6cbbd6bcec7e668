"""What all connections share: their limits, what they hold, and the clock that ends the overdue ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .limits import Limits

if TYPE_CHECKING:
    import asyncio

_SWEEP_SECONDS = 1.0


class Bounded(Protocol):
    """A connection, as the gate sees it."""

    def end_if_overdue(self, now: float) -> None:
        """Refuse or close it if it takes too long."""


@dataclass
class Gate:
    """What all connections share.

    Args:
        limits: what they may cost.
        refused: told the reason of each refusal.
        connections: those that are open.
        held_bytes: bodies that arrived and are not answered yet.
    """

    limits: Limits
    refused: Callable[[str], None]
    connections: set[Bounded] = field(default_factory=set)
    held_bytes: int = 0
    _sweeping: bool = False

    def enter(self, connection: Bounded, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a connection until it leaves."""
        self.connections.add(connection)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(_SWEEP_SECONDS, self._sweep, loop)

    def leave(self, connection: Bounded) -> None:
        """Forget a connection that is closed."""
        self.connections.discard(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        # One clock for all: a timer for each request would cost more than the request's head does.
        now = loop.time()
        for connection in tuple(self.connections):
            connection.end_if_overdue(now)
        self._sweeping = bool(self.connections)
        if self._sweeping:
            loop.call_later(_SWEEP_SECONDS, self._sweep, loop)
