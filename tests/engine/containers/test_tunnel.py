from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import httpx
import pytest

from airflow_model_deploy.engine.containers import run_inside, tunnel
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from tests.engine.containers.served_inside import with_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import APIClient

pytestmark = pytest.mark.docker
_FILES = Path("/proc/self/fd")


@pytest.fixture(scope="module")
def server(client: APIClient, base: str) -> Iterator[str]:
    with with_server(client, base) as made:
        yield made


def _processes(client: APIClient, server: str) -> int:
    return len(client.top(server)["Processes"])


def _wait(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_requests_of_a_client_share_one_connection(client: APIClient, server: str) -> None:
    with tunnel(client, server, wait_s=10) as url, httpx.Client(base_url=url, timeout=20) as asker:
        ports = {asker.get("/").text for _ in range(20)}
        assert len(ports) == 1
        assert _processes(client, server) == 2  # the server and one that carries


def test_bodies_of_many_megabytes_arrive_as_they_were(client: APIClient, server: str) -> None:
    body = os.urandom(30_000_000)
    with tunnel(client, server, wait_s=10) as url:
        answer = httpx.post(f"{url}/echo", content=body, timeout=30)
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(body).digest()


def test_connections_side_by_side_are_kept_apart(client: APIClient, server: str) -> None:
    def ask(number: int) -> bool:
        body = bytes([number]) * 200_000
        return httpx.post(f"{url}/echo", content=body, timeout=30).content == body

    with tunnel(client, server, wait_s=10) as url, ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(12)))


def test_the_end_of_a_request_is_passed_on_and_the_answer_still_arrives(
    client: APIClient, server: str
) -> None:
    with (
        tunnel(client, server, wait_s=10) as url,
        socket.create_connection(("127.0.0.1", urlparse(url).port or 0), 10) as raw,
    ):
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200")


def test_nothing_is_left_behind(client: APIClient, server: str) -> None:
    """Neither a thread here nor a program inside, whatever state a connection was in."""
    with tunnel(client, server, wait_s=10) as url:
        httpx.get(url, timeout=20)
    assert _wait(lambda: _processes(client, server) == 1)
    threads, files = threading.active_count(), len(list(_FILES.iterdir()))
    for _ in range(3):
        with tunnel(client, server, wait_s=10) as url:
            idle = httpx.Client(base_url=url, timeout=20)
            idle.get("/")
            # One that still waits for its answer, one that said nothing at all.
            waiting, silent = (
                socket.create_connection(("127.0.0.1", urlparse(url).port or 0)) for _ in range(2)
            )
            waiting.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            assert _wait(lambda: _processes(client, server) == 4)
        for left in (idle, waiting, silent):
            left.close()
        assert threading.active_count() == threads
        assert _wait(lambda: _processes(client, server) == 1)
    assert len(list(_FILES.iterdir())) <= files + 1


def test_a_port_where_nobody_listens_closes_the_connection_and_says_why(
    client: APIClient, server: str
) -> None:
    said: list[str] = []
    with tunnel(client, server, 81, log=said.append) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url, timeout=20)
        assert _wait(lambda: bool(said))
    assert "nothing listens on port 81" in said[0]


def test_a_container_that_is_gone_closes_the_connection_and_says_why(client: APIClient) -> None:
    said: list[str] = []
    with tunnel(client, "no-such-container", log=said.append) as url:
        with pytest.raises(httpx.TransportError):
            httpx.get(url, timeout=20)
        assert _wait(lambda: bool(said))
    assert "No such container" in said[0]


def test_a_program_inside_is_run_with_its_streams_apart(client: APIClient, server: str) -> None:
    program = (
        "import sys; sys.stdout.write(sys.stdin.read().upper()); print('why', file=sys.stderr); sys.exit(3)"
    )
    result = run_inside(client, server, ["python3", "-c", program], stdin=b"quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"QUIET", "why")


def test_a_program_that_does_not_end_is_given_up(client: APIClient, server: str) -> None:
    with pytest.raises(UnavailableError, match="not done after"):
        run_inside(client, server, ["python3", "-c", "import time; time.sleep(5)"], timeout_s=0.3)


def test_a_program_that_is_not_there_is_said(client: APIClient, server: str) -> None:
    result = run_inside(client, server, ["no-such-program"])
    assert result.exit_code != 0
    assert b"no-such-program" in result.stdout
    with pytest.raises(InputError, match="No such container"):
        run_inside(client, "no-such-container", ["true"])


def test_the_health_check_asks_the_server(client: APIClient, server: str) -> None:
    for arguments, code in (((), 0), (("81",), 1)):
        result = run_inside(client, server, ["python3", "-m", "model_server.health", *arguments])
        assert result.exit_code == code, result
