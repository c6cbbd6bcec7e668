from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.engine.serving.servables import (
    REPOSITORY,
    edit,
    infer_body,
    request,
    running,
    slow,
    start,
    until,
    write_servable,
)

SLOW_BODY = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]}]}
ITERATIONS = 300_000


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_servable(tmp_path_factory.mktemp("slow") / "servable", slow(ITERATIONS))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_refused_servable_is_exit_code_3_and_one_line(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    edit(folder, lambda document: document["files"][0].update(sha256="0" * 64))
    process = start(folder, tmp_path)
    assert process.wait(20) == 3
    (line,) = (tmp_path / "server.log").read_text().splitlines()
    assert line.startswith("servable refused: model.onnx: sha256 is")
    assert not (tmp_path / "ready.json").exists()


@pytest.mark.parametrize(
    "options", [["--port", "x"], ["--threads", "0"], ["--drain-seconds", "0"], ["--public-fd", "250"]]
)
def test_bad_arguments_are_exit_code_2(linear_folder: Path, tmp_path: Path, options: list[str]) -> None:
    assert start(linear_folder, tmp_path, *options).wait(20) == 2


def test_a_port_in_use_is_exit_code_4(linear_folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(linear_folder, tmp_path, "--port", str(taken.getsockname()[1]))
        assert process.wait(20) == 4
    assert "can't listen" in (tmp_path / "server.log").read_text()


def test_sigterm_answers_what_was_accepted_and_says_not_ready(slow_folder: Path, tmp_path: Path) -> None:
    with running(slow_folder, tmp_path, "--drain-seconds", "20") as server, ThreadPoolExecutor(4) as pool:
        infer = f"{server.url}/v2/models/tiny/infer"
        kept = http.client.HTTPConnection("127.0.0.1", server.ready["port"], timeout=10)
        kept.request("GET", "/v2/health/ready")
        assert kept.getresponse().read() == b'{"ready":true}'
        answers = [pool.submit(request, infer, SLOW_BODY) for _ in range(4)]
        until(lambda: "model_requests_in_flight 4.0" in request(f"{server.url}/metrics")[1], "all in flight")

        server.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in server.log.read_text(), "draining")
        kept.request("GET", "/v2/health/ready")
        response = kept.getresponse()
        assert (response.status, response.headers["connection"]) == (503, "close")
        kept.close()

        assert [answer.result()[0] for answer in answers] == [200] * 4
        assert server.process.wait(10) == 0


def test_a_connection_without_a_request_yet_is_answered_in_the_drain(
    linear_folder: Path, tmp_path: Path
) -> None:
    with running(linear_folder, tmp_path) as server:
        early = http.client.HTTPConnection("127.0.0.1", server.ready["port"], timeout=10)
        early.connect()
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in server.log.read_text(), "draining")
        time.sleep(0.2)
        early.request("GET", "/v2/health/live")
        assert early.getresponse().status == 200
        early.close()
        assert server.process.wait(10) == 0


def test_an_idle_connection_does_not_hold_up_the_end(linear_folder: Path, tmp_path: Path) -> None:
    with running(linear_folder, tmp_path, "--drain-seconds", "20") as server:
        idle = socket.create_connection(("127.0.0.1", server.ready["port"]))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0
        assert idle.recv(1) == b""
        idle.close()


def test_a_drain_ends_at_its_limit(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s", slow(ITERATIONS // 10))
    with running(folder, tmp_path / "work", "--drain-seconds", "2") as server:
        # A client that never ends its request would hold up the server for ever.
        stuck = socket.create_connection(("127.0.0.1", server.ready["port"]))
        stuck.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(6) == 0
        stuck.close()


def test_the_public_socket_opens_and_closes_by_signal_and_the_private_port_stays(
    linear_folder: Path, tmp_path: Path
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    public = f"http://127.0.0.1:{listener.getsockname()[1]}"
    fd = listener.fileno()
    with running(linear_folder, tmp_path, "--public-fd", str(fd), fds=[fd]) as server:
        assert server.ready == {"pid": server.process.pid, "port": server.ready["port"], "public": False}
        for _ in range(2):
            server.process.send_signal(signal.SIGUSR1)
            until(lambda: server.ready["public"], "public")
            assert request(f"{public}/v2/models/tiny/infer", infer_body([[1, 2, 3, 4]]))[0] == 200

            server.process.send_signal(signal.SIGUSR2)
            until(lambda: not server.ready["public"], "private again")
            waiting = socket.create_connection(listener.getsockname())
            waiting.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            waiting.settimeout(0.3)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            waiting.close()
            assert request(f"{server.url}/v2/health/ready")[0] == 200
    listener.close()


def test_the_server_ends_when_its_parent_is_killed(linear_folder: Path, tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import subprocess, sys, time
        command = [sys.executable, "-m", "airflow_model_deploy.engine.serving", "--lifeline"]
        command += ["--servable", {str(linear_folder)!r}, "--ready-file", {str(tmp_path / "ready.json")!r}]
        child = subprocess.Popen(command, stdin=subprocess.PIPE)
        print(child.pid, flush=True)
        time.sleep(60)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    until(lambda: (tmp_path / "ready.json").exists(), "ready")
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not alive(child), "the server ended", 5.0)
