"""The ASGI application: paths, statuses and metrics around one model; knows no sockets."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from . import __version__, logs
from .answers import Encoder
from .batching import Batcher
from .connection import Connection
from .execution import Execution, failure, refusal
from .gate import Gate
from .independence import why_not_together
from .limits import Limits
from .observing import Observer
from .protocol import Decoder
from .request import Answer, RequestError
from .routing import Routes
from .wire import headers_of

if TYPE_CHECKING:
    from .batching import Job
    from .metrics import Metrics
    from .servable import Servable
    from .session import Session

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Scope = dict[str, Any]

_EXTENSIONS = ["binary_tensor_data"]


class App:
    """One model behind the protocol.

    Args:
        servable: what is served.
        session: the loaded model.
        metrics: where requests are counted.
        limits: what is taken on at most.

    Attributes:
        servable: what is served.
        connect: makes a connection that keeps the limits, as uvicorn's `http` wants it.
        draining: set when the server is about to end: readiness says no, requests are still answered.
        pool: the thread of long runs; the event loop stays free to answer probes.
    """

    def __init__(
        self, servable: Servable, session: Session, metrics: Metrics, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.draining = False
        self.pool = ThreadPoolExecutor(1, "inference")
        self.servable, self._metrics = servable, metrics
        self._routes, self._decoder, self._encoder = (
            Routes(servable),
            Decoder(servable, self.limits.max_json_bytes),
            Encoder(servable),
        )
        self._observer = Observer(metrics.inputs, getattr(servable, "ranges", {}))
        self._batcher = self._make_batcher(session)
        gate = Gate(self.limits, metrics.reject)
        # uvicorn calls it as it would call the class.
        self.connect: Any = partial(Connection, gate, self._routes.inference, self.infer)
        self._in_flight = 0
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        """Answer one request that is no inference: nothing here waits, or reads a body."""
        if scope["type"] != "http":
            return
        answer = self._counted(self._answer(scope["path"], scope["method"]))
        start = {"type": "http.response.start", "status": answer.status, "headers": headers_of(answer)}
        await send(start)
        await send({"type": "http.response.body", "body": answer.body})

    def infer(self, connection: Connection, cycle: Any) -> None:
        """Answer one inference, now or later."""
        deliver = partial(self._deliver, connection, cycle)
        self._in_flight += 1
        try:
            header_length = _header_length(dict(cycle.scope["headers"]))
            # Before the decoding: whoever is refused should cost nothing.
            self._batcher.refuse_if_full()
            job = self._batcher.submit(self._decoder.decode(cycle.body, header_length), deliver)
            connection.on_gone = partial(self._leave, job)
        except RequestError as error:
            if error.reason == "input_not_finite" and error.tensor is not None:
                self._observer.observe_refused(error.tensor)
            deliver(refusal(error))
        except Exception as error:
            logs.failure("a request could not be read", error)
            deliver(failure("the server failed on this request; its log says why"))

    def close(self) -> None:
        """Run nothing any more."""
        self._batcher.close()
        self.pool.shutdown()

    def _deliver(self, connection: Connection, cycle: Any, answer: Answer) -> None:
        if cycle.disconnected:
            return
        self._in_flight -= 1
        self._metrics.duration(answer.status).observe(time.perf_counter() - cycle.scope["started"])
        connection.respond(cycle, self._counted(answer))

    def _leave(self, job: Job) -> None:
        self._in_flight -= 1
        self._batcher.leave(job)

    def _answer(self, path: str, method: str) -> Answer:
        try:
            operation = self._routes.find(path)
        except RequestError as error:
            return refusal(error)
        wanted = "POST" if operation == "infer" else "GET"
        if method != wanted:
            wrong = RequestError(f"method {method}: wanted {wanted}", status=405, reason="method")
            return replace(refusal(wrong), allow=wanted.encode())
        return self._describe(operation)

    def _describe(self, operation: str) -> Answer:
        servable, ready = self.servable, not self.draining
        if operation == "metrics":
            body = generate_latest(self._metrics.registry)
            return Answer(200, body, content_type=CONTENT_TYPE_LATEST.encode())
        if operation == "live":
            return Answer(200, b'{"live":true}')
        if operation == "ready":
            return Answer(200 if ready else 503, orjson.dumps({"ready": ready}))
        if operation == "model_ready":
            return Answer(200 if ready else 503, orjson.dumps({"name": servable.name, "ready": ready}))
        if operation == "server":
            return Answer(
                200, orjson.dumps({"name": "model-server", "version": __version__, "extensions": _EXTENSIONS})
            )
        about: dict[str, Any] = {
            "name": servable.name,
            "versions": [servable.version],
            "platform": "onnx_onnxruntime",
            "inputs": [t.to_json() for t in servable.inputs],
            "outputs": [t.to_json() for t in servable.outputs],
        }
        return Answer(200, orjson.dumps(about))

    def _counted(self, answer: Answer) -> Answer:
        if answer.reason is not None:
            self._metrics.reject(answer.reason)
        return answer

    def _make_batcher(self, session: Session) -> Batcher:
        obstacle = (
            "a batch is one row, as asked"
            if self.limits.max_batch_size == 1
            else why_not_together(session, self.servable)
        )
        if obstacle:
            logs.event("batching off", reason=obstacle)
        return Batcher(
            Execution(session, self._encoder, self._observer),
            self.limits,
            self._metrics,
            self.pool,
            together=obstacle is None,
            expected_seconds=session.first_run_seconds,
        )


def _header_length(headers: dict[bytes, bytes]) -> int | None:
    """Return the length of the body's JSON object where bytes of tensors follow it."""
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding != b"identity":
        raise RequestError(
            "content-encoding isn't supported; send the body as it is", status=415, reason="media_type"
        )
    length = headers.get(b"inference-header-content-length")
    if length is None:
        return None
    if not length.isdigit() or len(length) > 18:
        raise RequestError("inference-header-content-length: wanted the JSON object's number of bytes")
    return int(length)
