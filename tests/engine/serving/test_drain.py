"""Servers that end, or take over, under load: whoever was accepted is answered."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.engine.serving.rawhttp import connected, post, read_reply
from tests.engine.serving.servables import (
    Server,
    elementwise,
    expected,
    infer_body,
    linear,
    running,
    slow,
    until,
    write_servable,
)

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [[1.0, -2.0, 3.0, 4.0]]
JSON = post(json.dumps(infer_body(ROWS)).encode())
SLOW = post(json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]}]}).encode())


def binary() -> bytes:
    document = {
        "inputs": [
            {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
        ],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(document).encode()
    return post(
        head + np.array(ROWS, "<f4").tobytes(), headers=[f"Inference-Header-Content-Length: {len(head)}"]
    )


@dataclass
class Load:
    """Clients that never stop asking; each tries again only where its connection was refused."""

    port: int
    wanted: list[float]
    request: bytes
    keep_alive: bool
    refused_ends: bool  # a refused connection: the server has ended (True), or the client has failed (False)
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    done: bool = False

    async def client(self) -> None:
        while not self.done:
            try:
                async with connected(self.port) as (reader, writer):
                    while not self.done:
                        if not await self.ask(reader, writer):
                            break
            except ConnectionRefusedError:
                if self.refused_ends:
                    return
                self.failures.append("refused")
                await asyncio.sleep(0.01)
            except OSError as error:
                self.failures.append(f"while connecting: {error!r}")

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once; say whether the connection goes on."""
        try:
            async with asyncio.timeout(10):
                writer.write(self.request)
                reply = await read_reply(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, AssertionError) as error:
            self.failures.append(repr(error))
            return False
        if reply is None:
            self.failures.append("closed without an answer")
            return False
        if reply.status != 200:
            self.failures.append(f"{reply.status} {reply.body!r}")
            return False
        tensors = reply.tensors()
        if not np.allclose(tensors["y"], self.wanted, rtol=1e-5):
            self.failures.append(f"wrong: {tensors}")
        version = "v2" if b'"v2"' in reply.body else "v1"
        self.answers[version] += 1
        return self.keep_alive and reply.headers.get("connection", "").lower() != "close"


def signalled(server: Server, load: Load, clients: int, seconds: float) -> float:
    """Run the clients, send SIGTERM, wait until all of them were refused; return how long the end took."""

    async def main() -> float:
        tasks = [asyncio.ensure_future(load.client()) for _ in range(clients)]
        await asyncio.sleep(seconds)
        assert load.answers.total() > clients, load.failures
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
        while server.process.poll() is None:
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    return asyncio.run(main())


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept connections", "a connection a request"])
@pytest.mark.parametrize("encoding", ["json", "binary"])
def test_sigterm_under_load_fails_nobody(
    linear_folder: Path, tmp_path: Path, encoding: str, keep_alive: bool
) -> None:
    request = JSON if encoding == "json" else binary()
    for i in range(2):
        with running(linear_folder, tmp_path / str(i)) as server:
            load = Load(
                server.ready["port"], expected(ROWS)[0].tolist(), request, keep_alive, refused_ends=True
            )
            took = signalled(server, load, 24, 0.4)
            assert load.failures == []
            assert server.process.returncode == 0
            assert took < 5
            assert "Traceback" not in server.log.read_text()


def test_sigterm_with_a_full_queue_answers_what_it_took(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "servable", slow(5_000))
    with running(folder, tmp_path, "--drain-seconds", "15") as server:
        load = Load(server.ready["port"], [2.0], SLOW, keep_alive=True, refused_ends=True)
        signalled(server, load, 48, 1.5)
        assert load.failures == []
        assert server.process.returncode == 0


@pytest.mark.parametrize("sent", [100, len(JSON) - 10], ids=["half of the head", "half of the body"])
def test_a_request_that_was_on_its_way_is_answered(linear_folder: Path, tmp_path: Path, sent: int) -> None:
    async def main(server: Server) -> None:
        async with asyncio.timeout(10), connected(server.ready["port"]) as (reader, writer):
            writer.write(request[:sent])
            await asyncio.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.6)
            writer.write(request[sent:])
            reply = await read_reply(reader)
            assert reply is not None
            assert reply.status == 200
            assert reply.headers["connection"] == "close"

    request = JSON.replace(b"Host: x", b"Host: x\r\nX: " + b"x" * 150)
    with running(linear_folder, tmp_path) as server:
        asyncio.run(main(server))
        assert server.process.wait(10) == 0


def test_a_slow_reader_gets_all_of_its_answer_in_the_drain(tmp_path: Path) -> None:
    values = [0.5] * 1_000_000
    body = json.dumps({"inputs": [{"name": "x", "shape": [len(values)], "datatype": "FP32", "data": values}]})

    async def main(server: Server) -> None:
        async with asyncio.timeout(15), connected(server.ready["port"]) as (reader, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(post(body.encode()))
            await asyncio.sleep(1.0)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(1.5)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            reply = await read_reply(reader)
            assert reply is not None
            assert reply.tensors()["y"] == values

    with running(write_servable(tmp_path / "servable", elementwise("Identity")), tmp_path) as server:
        asyncio.run(main(server))
        assert server.process.wait(10) == 0


def test_a_reader_that_never_reads_does_not_hold_up_the_end(tmp_path: Path) -> None:
    values = [0.5] * 1_000_000
    body = json.dumps({"inputs": [{"name": "x", "shape": [len(values)], "datatype": "FP32", "data": values}]})
    folder = write_servable(tmp_path / "servable", elementwise("Identity"))
    with (
        running(folder, tmp_path, "--drain-seconds", "2") as server,
        socket.create_connection(("127.0.0.1", server.ready["port"])) as deaf,
    ):
        deaf.sendall(post(body.encode()))
        time.sleep(0.7)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(6) == 0


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept connections", "a connection a request"])
@pytest.mark.parametrize("end", [signal.SIGUSR2, signal.SIGTERM], ids=["told to stop", "told to end"])
def test_one_server_takes_over_from_another_and_nobody_is_even_refused(
    linear_folder: Path, tmp_path: Path, keep_alive: bool, end: signal.Signals
) -> None:
    """The listening socket is shared: which process accepts from it is the traffic decision."""
    other = write_servable(tmp_path / "v2", linear(), version="v2")
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        fd = listener.fileno()
        options = ("--public-fd", str(fd))
        number = listener.getsockname()[1]
        load = Load(number, expected(ROWS)[0].tolist(), JSON, keep_alive, refused_ends=False)
        with (
            running(linear_folder, tmp_path / "1", *options, fds=[fd]) as first,
            running(other, tmp_path / "2", *options, fds=[fd]) as second,
        ):
            asyncio.run(take_over(first, second, load, end))
            assert load.failures == []
            assert load.answers["v1"] > 50
            assert load.answers["v2"] > 50
            assert end is signal.SIGUSR2 or first.process.wait(15) == 0


async def take_over(first: Server, second: Server, load: Load, end: signal.Signals) -> None:
    loop = asyncio.get_running_loop()

    async def public(server: Server, wanted: bool) -> None:
        await loop.run_in_executor(None, until, lambda: server.ready["public"] is wanted, "public")

    first.process.send_signal(signal.SIGUSR1)
    await public(first, wanted=True)
    clients = [asyncio.ensure_future(load.client()) for _ in range(16)]
    await asyncio.sleep(0.4)
    second.process.send_signal(signal.SIGUSR1)
    await public(second, wanted=True)
    os.kill(first.process.pid, end)
    async with asyncio.timeout(15):
        while load.answers["v2"] < 200:
            await asyncio.sleep(0.02)
        # Nobody stays with the old one for ever.
        while True:
            before = load.answers["v1"]
            await asyncio.sleep(0.3)
            if load.answers["v1"] == before:
                break
    load.done = True
    await asyncio.gather(*clients)
