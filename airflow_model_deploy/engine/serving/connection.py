"""The short way of an inference request through a connection; knows no model.

It is handed over when it is whole, and answered in one write, without a task of its own: that is half of what a
small request costs. Everything else goes uvicorn's way, through the ASGI application.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .bounded import BoundedConnection
from .wire import answer_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .gate import Gate
    from .request import Answer


class Connection(BoundedConnection):
    """A connection that hands over inference requests itself.

    Args:
        gate: its limits.
        paths: of inference, by POST.
        infer: told (connection, cycle) when a request is whole; answers by `respond`, now or later.
    """

    def __init__(
        self, gate: Gate, paths: frozenset[str], infer: Callable[[Connection, Any], None], **uvicorn: Any
    ) -> None:
        super().__init__(gate, **uvicorn)
        self.paths, self.infer = paths, infer
        self.direct = False  # whether what is being answered is an inference

    def on_body(self, body: bytes) -> None:
        """Read on: it is uvicorn's application that would ask for more."""
        super().on_body(body)
        if self.direct and self.active is self.cycle and not self.refusing:
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        """Hand over the request that arrived."""
        super().on_message_complete()
        if self.direct and self.active is self.cycle and not self.refusing:
            self.infer(self, self.cycle)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.direct = cycle.scope["method"] == "POST" and cycle.scope["path"] in self.paths
        if not self.direct:
            super()._start_asgi_task(cycle, app)
            return
        self.active = cycle
        cycle.scope["started"] = time.perf_counter()
        if cycle.waiting_for_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        self.flow.resume_reading()
        if not cycle.more_body:
            self.infer(self, cycle)

    def respond(self, cycle: Any, answer: Answer) -> None:
        """Answer an inference, unless its client is gone."""
        self.on_gone = None
        if cycle.disconnected or cycle.response_complete:
            return
        if self.app_state.get("draining"):
            cycle.keep_alive = False
        cycle.response_started = cycle.response_complete = True
        cycle.body = bytearray()
        if self.transport.is_closing():
            return
        default = self.server_state.default_headers
        self.transport.write(answer_bytes(answer, default, keep_alive=cycle.keep_alive))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
