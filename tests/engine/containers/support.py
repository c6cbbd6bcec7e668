"""A real engine and a real registry for tests; whatever a test makes there goes away with it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from airflow_model_deploy.engine.containers import Engine, answers, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import APIClient


@pytest.fixture(scope="session")
def engine() -> Engine:
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip("no DOCKER_HOST: needs a Docker engine")
    if not answers(Engine()):
        pytest.skip(f"no engine answers at {Engine().address}")
    return Engine()


@pytest.fixture(scope="session")
def client(engine: Engine) -> Iterator[APIClient]:
    client = connect(engine)
    yield client
    client.close()


@pytest.fixture(scope="session")
def registry(engine: Engine) -> str:
    found = os.environ.get("TESTBED_REGISTRY")
    if not found:
        pytest.skip(
            "no TESTBED_REGISTRY: needs a registry that the engine trusts, with python:3.11-slim in it"
        )
    return found


@pytest.fixture(scope="session")
def base(registry: str) -> str:
    return f"{registry}/python:3.11-slim"


@pytest.fixture
def repository(client: APIClient, registry: str) -> Iterator[str]:
    """A repository of the registry; its images leave the engine afterwards."""
    name = f"tests/{secrets.token_hex(4)}"
    yield f"{registry}/{name}"
    remove_images(client, name)


def remove_images(client: APIClient, part_of_name: str, keep: str = "") -> None:
    from docker.errors import APIError

    for image in client.images():
        for name in (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())):
            if part_of_name in name and name != keep:
                with contextlib.suppress(APIError):  # still in use by a test that runs beside this one
                    client.remove_image(name)


@contextlib.contextmanager
def container(client: APIClient, image: str, command: list[str], **options: Any) -> Iterator[str]:
    """The id of a container that is made, not started, and gone afterwards."""
    made = client.create_container(image, command, name=f"tests-{secrets.token_hex(6)}", **options)["Id"]
    try:
        yield made
    finally:
        client.remove_container(made, force=True, v=True)


class _Guard(BaseHTTPRequestHandler):
    """Passes requests with the right name and password on to a registry."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    wanted = ""

    def do_GET(self) -> None:
        body = self._body()
        if self.headers.get("Authorization") != self.wanted:
            self._answer(
                401, {"WWW-Authenticate": 'Basic realm="tests"'}, b'{"errors":[{"code":"UNAUTHORIZED"}]}'
            )
            return
        upstream = http.client.HTTPConnection(self.upstream, timeout=30)
        dropped = ("authorization", "transfer-encoding", "connection")
        # A client may send a header more than once, Accept above all.
        headers = {
            k: ", ".join(self.headers.get_all(k) or ()) for k in self.headers if k.lower() not in dropped
        }
        upstream.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        answer = upstream.getresponse()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in ("content-length", "connection")}
        self._answer(answer.status, kept, answer.read(), answer.getheader("Content-Length"))
        upstream.close()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def guarded(registry: str, username: str, password: str) -> Iterator[str]:
    """Yield the address of a registry that asks for a name and a password, in front of another."""
    wanted = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    handler = type("Guard", (_Guard,), {"upstream": registry, "wanted": wanted})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
