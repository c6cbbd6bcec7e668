"""What is taken on at most, over real connections."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.engine.serving.servables import Server, infer_body, request, running, until

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [[1.0, 2.0, 3.0, 4.0]]


def begin(server: Server, sent: int, length: int = 60_000) -> socket.socket:
    """Send the head of a request and so many bytes of its body."""
    client = socket.create_connection(("127.0.0.1", server.ready["port"]), timeout=10)
    head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    client.sendall(head.encode() + b" " * sent)
    return client


def answer(client: socket.socket) -> str:
    with client:
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def rejected(server: Server, reason: str) -> float:
    (line,) = (
        line
        for line in request(f"{server.url}/metrics")[1].splitlines()
        if line.startswith(f'model_rejected_total{{reason="{reason}"}}')
    )
    return float(line.rsplit(" ", 1)[1])


def test_bodies_are_bounded_over_all_connections_and_their_memory_comes_back(
    linear_folder: Path, tmp_path: Path
) -> None:
    with running(linear_folder, tmp_path, "--max-memory-bytes", "100000") as server:
        infer = f"{server.url}/v2/models/tiny/infer"
        first = begin(server, 50_000)
        time.sleep(0.1)
        refused = answer(begin(server, 55_000))
        assert refused.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1" in refused
        assert "more than 100000 bytes are held" in refused
        assert rejected(server, "memory") == 1
        # The refused one holds nothing any more, and neither does the other when it is gone.
        assert request(infer, infer_body(ROWS))[0] == 200
        first.close()
        time.sleep(0.1)
        for _ in range(3):
            done = begin(server, 55_000, length=55_000)
            assert "the body is not JSON" in done.recv(65536).decode()
            done.close()
        assert request(infer, infer_body(ROWS))[0] == 200


def test_a_size_is_refused_by_the_head_alone(linear_folder: Path, tmp_path: Path) -> None:
    with running(linear_folder, tmp_path, "--max-body-bytes", "1000") as server:
        refused = answer(begin(server, 0, length=1001))
        assert refused.startswith("HTTP/1.1 413 ")
        head, body = refused.split("\r\n\r\n")
        assert "connection: close" in head
        assert json.loads(body) == {
            "error": "the body is larger than 1000 bytes; send fewer samples a request"
        }


def test_who_is_too_many_is_told_so_and_a_place_that_is_free_is_given(
    linear_folder: Path, tmp_path: Path
) -> None:
    with running(linear_folder, tmp_path, "--max-connections", "2") as server:
        infer = f"{server.url}/v2/models/tiny/infer"
        idle = [socket.create_connection(("127.0.0.1", server.ready["port"])) for _ in range(2)]
        time.sleep(0.1)
        assert answer(begin(server, 10, length=10)).startswith("HTTP/1.1 503 ")
        assert request(f"{server.url}/v2/health/live")[0] == 200
        for client in idle:
            client.close()
        until(lambda: request(infer, infer_body(ROWS))[0] == 200, "a free place")


@pytest.mark.parametrize("part", ["POST /v2/models/tiny/infer HTTP/1.1\r\nHost", ""])
def test_the_patience_with_a_request_is_not_the_patience_with_a_pause(
    linear_folder: Path, tmp_path: Path, part: str
) -> None:
    options = ("--io-timeout-seconds", "0.5", "--idle-timeout-seconds", "60")
    with running(linear_folder, tmp_path, *options) as server:
        client = socket.create_connection(("127.0.0.1", server.ready["port"]), timeout=4)
        client.sendall(part.encode())
        if part:
            assert answer(client).startswith("HTTP/1.1 408 ")
            assert rejected(server, "slow_request") == 1
        else:
            time.sleep(2)
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            client.close()


@pytest.mark.parametrize(
    "option",
    [
        ["--max-queue", "0"],
        ["--max-batch-size", "-1"],
        ["--max-delay-ms", "nan"],
        ["--request-timeout-seconds", "0"],
        ["--io-timeout-seconds", "inf"],
    ],
)
def test_limits_that_are_none_are_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from airflow_model_deploy.engine.serving.options import parse

    with pytest.raises(SystemExit) as caught:
        parse(["--servable", "x", *option])
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err
