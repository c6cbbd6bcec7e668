"""One HTTP connection, uvicorn's, bounded in bytes and time; knows no model.

uvicorn bounds neither a request's head nor its duration nor what all bodies hold together. Here every byte that
arrives is counted, and a connection that goes beyond a limit is answered at once, told to end, and read on for a
moment: an answer that is followed by a reset often never reaches its client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .wire import refusal_bytes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .gate import Gate

_LINGER_SECONDS = 2.0
_LINGER_BYTES = 16 * 1024 * 1024
# A head, and the framing of a chunked body.
_HEAD_BYTES = 64 * 1024


class BoundedConnection(HttpToolsProtocol):
    """One connection that keeps the gate's limits."""

    def __init__(self, gate: Gate, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.gate = gate
        self.reading = False  # a request has begun to arrive, and has not arrived
        self.in_head = False
        self.since = self.loop.time()  # of the request's first byte, the answer's last, or the refusal
        self.received = self.body_bytes = self.held = 0
        self.completed = 0
        self.shed = False
        self.refusing = False
        self.postponed: tuple[int, str] | None = None  # a refusal that waits for an answer before it
        self.active: Any = None  # the cycle that is being answered
        self.on_gone: Callable[[], None] | None = None  # who waits for its answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, and note if there are too many."""
        super().connection_made(transport)
        self.gate.enter(self, self.loop)
        count, limit = len(self.gate.connections), self.gate.limits.max_connections
        self.shed = count > limit
        if count > 2 * limit:
            self._abort("connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything that was held for it."""
        self.gate.leave(self)
        self._release()
        self._forget("disconnected")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless it is too much."""
        if self.refusing:
            self.received += len(data)
            if self.received > _LINGER_BYTES:
                self._abort()
            return
        if self.shed and not self.reading and not data.startswith(b"GET "):
            limit = self.gate.limits.max_connections
            self.refuse(503, "connections", f"more than {limit} connections are open; try again")
            return
        completed = self.completed
        super().data_received(data)
        # Of a piece in which another request ended, nobody knows how much belongs to this one.
        if self.reading and not self.refusing and completed == self.completed:
            self.received += len(data)
            # Chunks of a few bytes are mostly framing.
            if self.received > _HEAD_BYTES + 4 * self.body_bytes:
                self.refuse(431, "too_large", f"the head is larger than {_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Note when a request begins."""
        super().on_message_begin()
        if not self.refusing:
            self.reading = self.in_head = True
            self.since = self.loop.time()
            self.received = self.body_bytes = 0

    def on_headers_complete(self) -> None:
        """Refuse by the head what is too large."""
        if self.refusing:
            return
        for name, value in self.headers:
            if name == b"content-length" and int(value) > self.gate.limits.max_body_bytes:
                self._refuse_size()
                return
        self.in_head = False
        super().on_headers_complete()
        if self.app_state.get("draining"):
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Count what arrives."""
        if self.refusing:
            return
        size = len(body)
        self.body_bytes += size
        if self.body_bytes > self.gate.limits.max_body_bytes:
            self._refuse_size()
            return
        if self.cycle.response_complete:
            return
        self.held += size
        self.gate.held_bytes += size
        if self.gate.held_bytes > self.gate.limits.max_memory_bytes:
            limit = self.gate.limits.max_memory_bytes
            self.refuse(503, "memory", f"requests of more than {limit} bytes are held; try again")
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request arrived."""
        if self.refusing:
            return
        self.reading = False
        self.completed += 1
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let go of the request, and go on with the next one."""
        self._release()
        self.active, self.on_gone = None, None
        self.server_state.total_requests += 1
        if not self.reading:
            self.since = self.loop.time()
        self._go_on()

    def resume_writing(self) -> None:
        """Go on: the client takes what it is sent."""
        super().resume_writing()
        if self.active is None:
            self._go_on()

    def _go_on(self) -> None:
        # A client that asks and never listens is not asked for more.
        if self.transport.is_closing() or self.flow.write_paused:
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.postponed is not None:
            self._end(*self.postponed)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.active = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn gives it
        """Answer what is not HTTP."""
        if not self.refusing:
            self.refuse(400, "bad_http", "what arrived is not a request in HTTP/1.1")

    def refuse(self, status: int, reason: str, message: str) -> None:
        """Refuse what is arriving, and end the connection; what arrived before is answered first."""
        self.gate.refused(reason)
        self.refusing, self.received = True, 0
        own = self.reading and not self.in_head  # whether what arrives has a cycle yet
        if own and self.pipeline:
            self.pipeline.popleft()
            self.cycle.disconnected = self.cycle.response_complete = True
        elif own and self.active is not None:
            self._forget(None)
        if self.active is None:
            self._end(status, message)
        else:
            self.postponed = (status, message)

    def end_if_overdue(self, now: float) -> None:
        """Refuse or close whoever takes too long."""
        limits = self.gate.limits
        waited = now - self.since
        if self.refusing and self.active is None:
            if waited > _LINGER_SECONDS:
                self._abort()
        # The second of two requests in a row is not read on while the first is being answered.
        elif self.reading and not self.pipeline and not self.refusing:
            if waited > limits.io_timeout_seconds:
                seconds = f"{limits.io_timeout_seconds:g} s"
                self.refuse(408, "slow_request", f"the request did not arrive within {seconds}")
        elif self.transport.is_closing() or self.transport.get_write_buffer_size():
            if waited > limits.io_timeout_seconds:
                self._abort("slow_reader")
        elif self.active is None and waited > limits.idle_timeout_seconds:
            self.transport.close()

    def _refuse_size(self) -> None:
        limit = self.gate.limits.max_body_bytes
        self.refuse(413, "too_large", f"the body is larger than {limit} bytes; send fewer samples a request")

    def _end(self, status: int, message: str) -> None:
        self.postponed = None
        self.since = self.loop.time()
        if self.transport.is_closing():
            return
        self.transport.write(refusal_bytes(status, message))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _abort(self, reason: str | None = None) -> None:
        if reason is not None:
            self.gate.refused(reason)
        self._forget(None)
        self.transport.abort()

    def _forget(self, reason: str | None) -> None:
        """Take back what is being answered: nobody will read it."""
        cycle, gone = self.active, self.on_gone
        self.active = self.on_gone = None
        self.pipeline.clear()
        if cycle is not None:
            cycle.disconnected = cycle.response_complete = True
            cycle.message_event.set()
        if gone is not None:
            if reason is not None:
                self.gate.refused(reason)
            gone()

    def _release(self) -> None:
        self.gate.held_bytes -= self.held
        self.held = 0
