"""The ASGI application: paths, statuses and metrics around one session; knows no sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from . import __version__, logs, protocol
from .metrics import Metrics
from .protocol import RequestError
from .servable import Servable
from .session import RunFailedError, Session, UnfitInputError

MAX_BODY_BYTES = 64 * 1024 * 1024

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Scope = dict[str, Any]
Answer = tuple[int, bytes]


@dataclass
class App:
    """One model behind the protocol.

    Args:
        servable: what is served.
        session: the loaded model.
        metrics: where requests are counted.
        max_body_bytes: a larger body is answered with 413.
        draining: set when the server is about to end: readiness says no, requests are still answered.
    """

    servable: Servable
    session: Session
    metrics: Metrics
    max_body_bytes: int = MAX_BODY_BYTES
    draining: bool = False
    # One thread: the runtime has its own for the work; this one keeps the event loop free to answer probes.
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "inference"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            operation = self._route(scope["path"])
            _refuse_other_method(operation, scope["method"])
            if operation == "infer":
                status, body = await self._timed_inference(scope, receive)
            else:
                status, body = self._describe(operation)
            kind = CONTENT_TYPE_LATEST if operation == "metrics" else "application/json"
        except RequestError as error:
            self._count_rejected(error)
            status, body, kind = error.status, _error(error), "application/json"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        if status == 405:
            headers.append((b"allow", b"POST" if operation == "infer" else b"GET"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _route(self, path: str) -> str:
        if path == "/metrics":
            return "metrics"
        match path.split("/")[1:]:
            case ["v2"]:
                return "server"
            case ["v2", "health", ("live" | "ready") as probe]:
                return probe
            case ["v2", "models", name, *rest]:
                return self._route_model(name, rest)
        raise RequestError(f"{path}: no such path", status=404, reason="not_found")

    def _route_model(self, name: str, rest: list[str]) -> str:
        if name != self.servable.name:
            raise RequestError(
                f"model {name!r}: not served here, {self.servable.name!r} is", status=404, reason="not_found"
            )
        if rest[:1] == ["versions"] and len(rest) > 1:
            if rest[1] != self.servable.version:
                raise RequestError(
                    f"version {rest[1]!r}: not served here, {self.servable.version!r} is",
                    status=404,
                    reason="not_found",
                )
            rest = rest[2:]
        operations = {(): "model", ("ready",): "model_ready", ("infer",): "infer"}
        if tuple(rest) not in operations:
            raise RequestError(f"{'/'.join(rest)}: no such path", status=404, reason="not_found")
        return operations[tuple(rest)]

    def _describe(self, operation: str) -> Answer:
        ready = not self.draining
        if operation == "metrics":
            return 200, generate_latest(self.metrics.registry)
        if operation == "live":
            return 200, b'{"live":true}'
        if operation == "ready":
            return (200 if ready else 503), orjson.dumps({"ready": ready})
        if operation == "model_ready":
            return (200 if ready else 503), orjson.dumps({"name": self.servable.name, "ready": ready})
        if operation == "server":
            return 200, orjson.dumps({"name": "model-server", "version": __version__, "extensions": []})
        return 200, orjson.dumps(
            {
                "name": self.servable.name,
                "versions": [self.servable.version],
                "platform": "onnx_onnxruntime",
                "inputs": [t.to_json() for t in self.servable.inputs],
                "outputs": [t.to_json() for t in self.servable.outputs],
            }
        )

    async def _timed_inference(self, scope: Scope, receive: Receive) -> Answer:
        started = time.perf_counter()
        status = 500
        self.metrics.in_flight.inc()
        try:
            try:
                status, body = await self._infer(scope, receive)
            except RequestError as error:
                self._count_rejected(error)
                status, body = error.status, _error(error)
        finally:
            self.metrics.in_flight.dec()
            self.metrics.duration.labels(self.servable.name, self.servable.version, str(status)).observe(
                time.perf_counter() - started
            )
        return status, body

    async def _infer(self, scope: Scope, receive: Receive) -> Answer:
        body = await _read_body(scope, receive, self.max_body_bytes)
        return await asyncio.get_running_loop().run_in_executor(self.pool, self._answer, body)

    def _answer(self, body: bytes) -> Answer:
        request = protocol.decode(body, self.servable)
        try:
            arrays = self.session.run(request.inputs, request.outputs)
        except UnfitInputError as error:
            raise RequestError(f"the model refuses these inputs: {error}") from error
        except RunFailedError as error:
            logs.warning("inference failed", error=str(error))
            return 500, orjson.dumps({"error": f"the model failed on this request: {error}"})
        return 200, protocol.encode(request, arrays, self.servable)

    def _count_rejected(self, error: RequestError) -> None:
        self.metrics.rejected.labels(error.reason).inc()
        if error.reason == "input_not_finite":
            self.metrics.inputs_nan.inc()


def _refuse_other_method(operation: str, method: str) -> None:
    wanted = "POST" if operation == "infer" else "GET"
    if method != wanted:
        raise RequestError(f"method {method}: wanted {wanted}", status=405, reason="method")


def _error(error: RequestError) -> bytes:
    return orjson.dumps({"error": str(error)})


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    headers = dict(scope["headers"])
    if b"inference-header-content-length" in headers:
        raise RequestError("binary tensors aren't supported; send JSON", status=415, reason="media_type")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise RequestError(
            "content-encoding isn't supported; send plain JSON", status=415, reason="media_type"
        )
    too_large = RequestError(
        f"the body is larger than {limit} bytes; send fewer samples a request", status=413, reason="too_large"
    )
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("the client went away", status=400, reason="disconnected")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise too_large
        if not message.get("more_body", False):
            return b"".join(chunks)
