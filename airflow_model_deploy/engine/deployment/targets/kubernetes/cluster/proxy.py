"""A loopback HTTP server that leads to one pod or Service through the API server; judges no answer."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.refusals import LostError, refusal
from airflow_model_deploy.engine.errors import InputError, ModelDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.response import BaseHTTPResponse

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.client import Cluster

_UP = ("Accept", "Content-Type", "Inference-Header-Content-Length", "X-Request-Id", "Traceparent")
_DOWN = ("Content-Type", "Inference-Header-Content-Length", "Retry-After", "X-Request-Id")
_MOST_BYTES = 64 << 20
_IDLE_S = 60.0


@contextmanager
def forwarded(cluster: Cluster, target: str) -> Iterator[str]:
    """Yield a base URL whose requests end at `target` while the block lasts.

    The URL holds a random part, so that nobody else on this machine can use our credentials by trying ports.

    Args:
        cluster: with the credentials. What is forwarded isn't a call to the API and isn't tried again.
        target: path of the proxy, as "/api/v1/namespaces/n/pods/p:8080/proxy".
    """
    server = _Server(cluster, target)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="cluster-proxy", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{server.prefix}"
    finally:
        server.shutdown()
        server.end()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, cluster: Cluster, target: str) -> None:
        self.cluster, self.target = cluster, target
        self.prefix = f"/{secrets.token_urlsafe(16)}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keep the connection in mind, then do as the base does."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, then do as the base does."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the client has left, or sees its connection closed."""

    def end(self) -> None:
        """Close the listener and every connection; their threads end."""
        self.server_close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    server: _Server

    def do_GET(self) -> None:
        """Forward it."""
        self._forward()

    def do_POST(self) -> None:
        """Forward it."""
        self._forward()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing: its lines would go to stderr, with the random part."""

    def _forward(self) -> None:
        server = self.server
        prefix, path = self.path[: len(server.prefix)], self.path[len(server.prefix) :]
        if not hmac.compare_digest(prefix.encode(), server.prefix.encode()) or not _stays(path):
            self._answer(404, {}, b"")
            return
        size = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not size.isdigit() or int(size) > _MOST_BYTES:
            self.close_connection = True  # the body stays unread
            self._refuse(413, f"the request's body has no length, or more than {_MOST_BYTES} bytes")
            return
        body = self.rfile.read(int(size)) if int(size) else None
        path, _, query = path.partition("?")
        try:
            status, headers, data = self._ask(path, query, body)
        except ModelDeployError as e:
            self._refuse(502, str(e))
            return
        self._answer(status, headers, data)

    def _ask(self, path: str, query: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
        """What the target answers, whatever its status."""
        cluster = self.server.cluster
        answer = cluster.transport.send(
            self.command,
            self.server.target + path,
            query=query,
            body=body,
            headers={name: self.headers[name] for name in _UP if name in self.headers},
            read_s=cluster.timeout_s,
            stream=True,
        )
        try:
            data = _bounded(answer)
        finally:
            answer.close()
        headers = {name: answer.headers[name] for name in _DOWN if name in answer.headers}
        if answer.status >= 400 and (status := _of_api_server(data)) is not None:
            # Not the model's words. Whom it doesn't find may be there later, so that isn't "no such model".
            words = str(refusal(f"{self.server.target} through the API server", answer.status, status))
            code = 502 if answer.status == 404 else answer.status
            return code, {"Content-Type": "application/json"}, json.dumps({"error": words}).encode()
        return answer.status, headers, data

    def _refuse(self, status: int, words: str) -> None:
        body = json.dumps({"error": words}).encode()
        self._answer(status, {"Content-Type": "application/json"}, body)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _bounded(answer: BaseHTTPResponse) -> bytes:
    from urllib3.exceptions import HTTPError

    try:
        data = answer.read(_MOST_BYTES + 1)
    except (HTTPError, OSError) as e:
        raise LostError("the answer through the API server", found=e) from e
    if len(data) > _MOST_BYTES:
        raise InputError("the answer's body", found=f"more than {_MOST_BYTES} bytes")
    return data


def _stays(path: str) -> bool:
    """Whether a path leads nowhere but into the target: the way up from it is the rest of the API."""
    parts = unquote(path.partition("?")[0]).split("/")
    return path[:1] == "/" and "." not in parts and ".." not in parts


def _of_api_server(data: bytes) -> dict[str, Any] | None:
    """The API server's own Status, where that is what came instead of the target's answer."""
    try:
        status = json.loads(data)
    except ValueError:
        return None
    return status if isinstance(status, dict) and status.get("kind") == "Status" else None
