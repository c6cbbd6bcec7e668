"""Clients that mean harm, or don't know better: the others never notice."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.engine.serving.rawhttp import (
    Reply,
    allow_connections,
    connected,
    cpu_seconds,
    exchange,
    get,
    peak,
    post,
    read_reply,
    resident,
    sample,
)
from tests.engine.serving.servables import (
    Server,
    expected,
    infer_body,
    linear,
    running,
    save,
    slow,
    tensor,
    write_servable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = [[1.0, -2.0, 3.0, 4.0]]
GOOD = post(json.dumps(infer_body(ROWS)).encode())
IMPATIENT = ("--io-timeout-seconds", "1", "--idle-timeout-seconds", "1")


@pytest.fixture(scope="module")
def hardened(linear_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with its own limits, for tests that only ask it."""
    allow_connections(1100)
    with running(linear_folder, tmp_path_factory.mktemp("hardened")) as server:
        yield server
        nothing_broke(server)


@pytest.fixture(scope="module")
def impatient(linear_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for nobody."""
    with running(linear_folder, tmp_path_factory.mktemp("impatient"), *IMPATIENT) as server:
        yield server
        nothing_broke(server)


def nothing_broke(server: Server) -> None:
    """No exception reached the log."""
    lines = [line for line in server.log.read_text(errors="replace").splitlines() if "Traceback" in line]
    assert not lines, f"{len(lines)} tracebacks: {lines[0]}"


def port(server: Server) -> int:
    value: int = server.ready["port"]
    return value


def is_right(reply: Reply | None) -> bool:
    assert reply is not None, "no answer"
    assert reply.status == 200, reply
    return bool(np.allclose(reply.tensors()["y"], expected(ROWS).reshape(-1), rtol=1e-5))


async def still_right(number: int) -> None:
    assert is_right(await exchange(number, GOOD))


async def counted(number: int, name: str, *labels: str) -> float:
    reply = await exchange(number, get("/metrics"))
    assert reply is not None
    return sample(reply.body.decode(), name, *labels)


async def hung_up(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """Everything that comes until the server closes; fails where it doesn't in time."""
    received = b""
    async with asyncio.timeout(seconds):
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                received += part
    return received


# Too much


@pytest.mark.parametrize(
    "extra", ["", "Expect: 100-continue\r\n", "Inference-Header-Content-Length: 100\r\n"]
)
def test_a_body_of_two_gigabytes_is_refused_from_its_head(hardened: Server, extra: str) -> None:
    async def main() -> None:
        before = resident(hardened.process.pid)
        async with connected(port(hardened)) as (reader, writer):
            head = (
                f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: 2147483648\r\n\r\n"
            )
            writer.write(head.encode())
            async with asyncio.timeout(1):
                raw = await reader.readuntil(b"\r\n\r\n")
            # Not even asked to go on.
            assert raw.startswith(b"HTTP/1.1 413 ")
            assert b"connection: close" in raw.lower()
            answer = json.loads(await hung_up(reader, 5))
            assert "larger than" in answer["error"]
        assert resident(hardened.process.pid) - before < 2 * 1024 * 1024
        await still_right(port(hardened))

    asyncio.run(main())


def test_who_sends_the_large_body_anyway_reads_the_refusal(hardened: Server) -> None:
    """An answer that is followed by a reset is lost: the server must read on for a moment."""

    async def main() -> None:
        async with asyncio.timeout(10), connected(port(hardened)) as (reader, writer):
            writer.write(
                b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
            )
            for _ in range(32):
                writer.write(bytes(65536))
                await asyncio.sleep(0)
            reply = await read_reply(reader)
            assert reply is not None
            assert reply.status == 413

    asyncio.run(main())


def test_chunks_without_end_are_refused(linear_folder: Path, tmp_path: Path) -> None:
    async def main(server: Server) -> None:
        before = resident(server.process.pid)
        async with asyncio.timeout(10), connected(port(server)) as (reader, writer):
            writer.write(
                b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            answered = asyncio.ensure_future(read_reply(reader))
            with contextlib.suppress(ConnectionError):
                while not answered.done():
                    writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(0)  # to read, too: drain alone doesn't always let go
            reply = await answered
            assert reply is not None
            assert reply.status == 413
        assert resident(server.process.pid) - before < 8 * 1024 * 1024
        await still_right(port(server))

    with running(linear_folder, tmp_path, "--max-body-bytes", "1000000") as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("what", ["one header", "many headers", "path", "chunk extension", "trailer"])
def test_heads_without_end_are_refused(hardened: Server, what: str) -> None:
    start, repeat = {
        "one header": (b"GET /v2 HTTP/1.1\r\nX: ", b"y" * 8192),
        "many headers": (b"GET /v2 HTTP/1.1\r\n", b"X: y\r\n" * 1024),
        "path": (b"GET /", b"a" * 8192),
        "chunk extension": (
            b"POST /v2/models/tiny/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            b"x" * 8192,
        ),
        "trailer": (
            b"POST /v2/models/tiny/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X: y\r\n" * 1024,
        ),
    }[what]

    async def main() -> None:
        before = resident(hardened.process.pid)
        async with asyncio.timeout(10), connected(port(hardened)) as (reader, writer):
            sent = 0
            ended = asyncio.ensure_future(hung_up(reader, 10))
            with contextlib.suppress(ConnectionError):
                writer.write(start)
                while not ended.done() and sent < 200_000_000:
                    writer.write(repeat)
                    sent += len(repeat)
                    await writer.drain()
            answer = await ended
            assert sent < 200_000_000, "it would read for ever"
            assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer[:200]
            assert not answer.startswith(b"HTTP/1.1 500")
        assert resident(hardened.process.pid) - before < 8 * 1024 * 1024
        await still_right(port(hardened))

    asyncio.run(main())


@pytest.mark.parametrize("element", ["1.5", "[]", '{"a":1}', '"x"'])
def test_a_body_full_of_values_neither_blocks_nor_fills_the_server(
    linear_folder: Path, tmp_path: Path, element: str
) -> None:
    """Thirty megabytes of JSON can become gigabytes of objects, and take minutes to make."""
    number = 33_000_000 // (len(element) + 1)
    data = ",".join([element] * number)
    body = f'{{"inputs":[{{"name":"x","shape":[1,4],"datatype":"FP32","data":[{data}]}}]}}'.encode()

    async def main(server: Server) -> None:
        pid = server.process.pid
        before, began = resident(pid), cpu_seconds(pid)
        reply = await exchange(port(server), post(body), seconds=60)
        assert reply is not None
        assert reply.status in (400, 413), reply
        # While it decodes, nobody else is answered: time of its CPU, which other processes don't lengthen.
        assert cpu_seconds(pid) - began < 2.5
        assert peak(pid) - before < 600 * 2**20
        await still_right(port(server))

    with running(linear_folder, tmp_path) as server:
        asyncio.run(main(server))


# Numbers that are none


@pytest.mark.parametrize(
    "token",
    [
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "1e999",
        "-1e999",
        "1e39",
        "null",
        '"1"',
        "true",
        "1" + "0" * 400,
    ],
)
def test_a_number_that_is_none_is_refused_by_name(hardened: Server, token: str) -> None:
    body = json.dumps(infer_body(ROWS)).replace("-2.0", token)
    reply = asyncio.run(exchange(port(hardened), post(body.encode())))
    assert reply is not None
    assert reply.status == 400, reply
    assert "'x'" in reply.json["error"] or "JSON" in reply.json["error"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bytes_carry_every_number_in_and_json_none_of_them_out(hardened: Server, value: float) -> None:
    rows = np.array([[1, value, 3, 4]], dtype="<f4")
    document: dict[str, Any] = {
        "inputs": [
            {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }

    def ask() -> Reply:
        head = json.dumps(document).encode()
        header = f"Inference-Header-Content-Length: {len(head)}"
        reply = asyncio.run(exchange(port(hardened), post(head + rows.tobytes(), headers=[header])))
        assert reply is not None
        return reply

    in_bytes = ask()
    document["outputs"][0]["parameters"]["binary_data"] = False
    in_json = ask()
    # Missing values are some models' business: either they are taken and come back, or they are refused by name.
    if in_bytes.status == 200:
        assert not np.isfinite(in_bytes.tensors()["y"]).any()
        assert in_json.status == 422
        assert "'y'" in in_json.json["error"]
    else:
        assert in_bytes.status == in_json.status == 400
        assert "'x'" in in_bytes.json["error"]


# Encodings


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "x-unknown", "gzip, gzip", "GZIP"])
def test_a_compressed_body_is_read_or_refused_never_misread(hardened: Server, coding: str) -> None:
    plain = json.dumps(infer_body(ROWS)).encode()
    body = {"gzip": gzip.compress, "GZIP": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)(plain)
    reply = asyncio.run(exchange(port(hardened), post(body, headers=[f"Content-Encoding: {coding}"])))
    assert reply is not None
    if reply.status == 200:
        assert is_right(reply)
    else:
        assert reply.status == 415
        assert "encoding" in reply.json["error"]


def test_a_bomb_does_not_go_off(hardened: Server) -> None:
    bomb = gzip.compress(b"[" * 200_000_000, 1)
    before = resident(hardened.process.pid)
    reply = asyncio.run(exchange(port(hardened), post(bomb, headers=["Content-Encoding: gzip"])))
    assert reply is not None
    assert reply.status in (400, 413, 415)
    assert resident(hardened.process.pid) - before < 32 * 1024 * 1024


def test_who_asks_first_whether_to_send_is_told_to(hardened: Server) -> None:
    """curl does so with every large body."""
    head, body = GOOD.split(b"\r\n\r\n", 1)

    async def main() -> None:
        async with asyncio.timeout(5), connected(port(hardened)) as (reader, writer):
            writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert is_right(await read_reply(reader))

    asyncio.run(main())


# Two requests that look like one, and the other way round


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: 5,5",
        "Content-Length: 0x5",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Content-Length\t: 5",
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(hardened: Server, head: str) -> None:
    """Behind a proxy, what one reads as a body the other reads as somebody else's request."""

    async def main() -> None:
        async with connected(port(hardened)) as (reader, writer):
            writer.write(
                f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n0\r\n\r\n".encode()
            )
            writer.write(get("/v2/health/live"))
            received = await hung_up(reader, 5)
        assert received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")), received
        assert received.count(b"HTTP/1.1 ") == 1, received

    asyncio.run(main())


@pytest.mark.parametrize("number", [2, 50, 2000])
def test_pipelined_requests_are_answered_in_order(hardened: Server, number: int) -> None:
    async def main() -> None:
        bodies = [{**infer_body([[i, 1, 1, 1]]), "id": str(i)} for i in range(number)]
        async with asyncio.timeout(20), connected(port(hardened)) as (reader, writer):
            writer.write(b"".join(post(json.dumps(body).encode()) for body in bodies))
            for i in range(number):
                reply = await read_reply(reader)
                assert reply is not None, f"nothing after {i} answers"
                assert (reply.status, reply.json["id"]) == (200, str(i)), reply
                np.testing.assert_allclose(reply.tensors()["y"], expected([[i, 1, 1, 1]])[0], rtol=1e-5)

    asyncio.run(main())


def test_garbage_behind_a_request_does_not_take_its_answer(hardened: Server) -> None:
    async def main() -> None:
        async with connected(port(hardened)) as (reader, writer):
            writer.write(GOOD + b"\x00\x01 garbage \r\n\r\n")
            received = await hung_up(reader, 5)
        # Its answer, or a connection that is cut: never somebody else's answer.
        assert not received or received.startswith(b"HTTP/1.1 200"), received[:300]

    asyncio.run(main())


# Slow ones, silent ones, many


async def drip(number: int, data: bytes, seconds: float) -> tuple[float, bytes]:
    """Send a byte at a time; return when the server had enough, and what it said."""
    began = time.monotonic()
    async with connected(number) as (reader, writer):
        said = asyncio.ensure_future(hung_up(reader, seconds))
        with contextlib.suppress(ConnectionError):
            for i in range(len(data)):
                if said.done():
                    break
                writer.write(data[i : i + 1])
                await asyncio.sleep(0.05)
        return time.monotonic() - began if said.done() else seconds, await said


@pytest.mark.parametrize("part", ["head", "body"])
def test_slow_senders_are_ended_and_nobody_waits_for_them(impatient: Server, part: str) -> None:
    head, body = GOOD.split(b"\r\n\r\n", 1)
    data = head[:40] + b"\r\nX: " + b"y" * 400 if part == "head" else head + b"\r\n\r\n" + body

    async def main() -> None:
        async def crowd() -> list[tuple[float, bytes]]:
            return await asyncio.gather(*(drip(port(impatient), data, 8.0) for _ in range(100)))

        slow_ones = asyncio.ensure_future(crowd())
        await asyncio.sleep(0.3)
        began = time.monotonic()
        for _ in range(20):
            await still_right(port(impatient))
        assert time.monotonic() - began < 2.0
        ended = await slow_ones
        for seconds, said in ended:
            assert seconds < 6.0
            assert said.startswith(b"HTTP/1.1 408 ") or not said, said[:200]
        assert sum(said.startswith(b"HTTP/1.1 408 ") for _, said in ended) > 90
        assert await counted(port(impatient), "model_requests_in_flight") == 0

    asyncio.run(main())


@pytest.mark.parametrize("before", [b"", GOOD])
def test_silent_connections_are_closed(impatient: Server, before: bytes) -> None:
    async def main() -> None:
        async with connected(port(impatient)) as (reader, writer):
            writer.write(before)
            if before:
                assert is_right(await read_reply(reader))
            assert await hung_up(reader, 6.0) == b""

    asyncio.run(main())


def spread(path: Path) -> dict[str, Any]:
    """y = x, half a million times: two megabytes for a hundred bytes."""
    info = helper.make_tensor_value_info
    save(
        helper.make_graph(
            [helper.make_node("Expand", ["x", "shape"], ["y"])],
            "spread",
            [info("x", TensorProto.FLOAT, [1])],
            [info("y", TensorProto.FLOAT, [500_000])],
            [numpy_helper.from_array(np.array([500_000], dtype=np.int64), "shape")],
        ),
        path,
    )
    return {"inputs": [tensor("x", "FP32", [1])], "outputs": [tensor("y", "FP32", [500_000])]}


def test_receivers_that_never_read_hold_up_nobody(tmp_path: Path) -> None:
    asked = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]}]}
    ask = post(json.dumps({**asked, "parameters": {"binary_data_output": True}}).encode())

    async def main(server: Server) -> None:
        before = resident(server.process.pid)
        async with contextlib.AsyncExitStack() as stack:
            deaf = [await stack.enter_async_context(connected(port(server))) for _ in range(20)]
            for _, writer in deaf:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                # Far more than the kernel's buffers hold: 40 MB of answers a connection.
                writer.write(ask * 20)
            await asyncio.sleep(0.5)
            for _ in range(10):
                reply = await exchange(port(server), ask, seconds=5)
                assert reply is not None
                assert reply.tensors() == {"y": [0.5] * 500_000}
            held = resident(server.process.pid) - before
            assert held < 20 * 3 * 2_000_000 + 30_000_000, f"{held / 2**20:.0f} MiB"
            # And they are let go, without their help.
            deadline = time.monotonic() + 8
            while await counted(port(server), "process_open_fds") > 30:
                assert time.monotonic() < deadline, "connections that don't read are kept"
                await asyncio.sleep(0.1)
            assert await counted(port(server), "model_requests_in_flight") == 0

    with running(write_servable(tmp_path / "servable", spread), tmp_path, *IMPATIENT) as server:
        asyncio.run(main(server))
        nothing_broke(server)


def test_a_thousand_connections_at_once(hardened: Server) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            before = resident(hardened.process.pid)
            opened = [await stack.enter_async_context(connected(port(hardened))) for _ in range(1000)]
            began = time.monotonic()
            for _ in range(50):
                await still_right(port(hardened))
            assert (time.monotonic() - began) / 50 < 0.1
            for _ in range(2):  # kept alive, all of them
                for _, writer in opened:
                    writer.write(GOOD)
                async with asyncio.timeout(20):
                    replies = [await read_reply(reader) for reader, _ in opened]
                assert all(reply is not None for reply in replies)
                # A bounded queue may say so, and must say when to come back; nobody is failed otherwise.
                for reply in replies:
                    assert reply is not None
                    assert is_right(reply) if reply.status == 200 else busy(reply)
                assert sum(reply is not None and reply.status == 200 for reply in replies) >= 128
            assert resident(hardened.process.pid) - before < 96 * 1024 * 1024
        await still_right(port(hardened))

    asyncio.run(main())


def test_too_many_connections_are_told_so_and_probes_still_answered(
    linear_folder: Path, tmp_path: Path
) -> None:
    async def main(number: int) -> None:
        async with contextlib.AsyncExitStack() as stack:
            kept = [await stack.enter_async_context(connected(number)) for _ in range(20)]
            for reader, writer in kept:
                writer.write(GOOD)
                assert is_right(await read_reply(reader))
            for _ in range(5):
                refused = await exchange(number, GOOD)
                assert refused is not None
                assert busy(refused)
                assert refused.headers["connection"] == "close"
                probe = await exchange(number, get("/v2/health/ready"))
                assert probe is not None
                assert probe.status == 200
            # Who was there before is not the one to go.
            for reader, writer in kept:
                writer.write(GOOD)
                assert is_right(await read_reply(reader))
            # Beyond all measure nobody is even read.
            many = [await stack.enter_async_context(connected(number)) for _ in range(40)]
            for reader, _ in many[-10:]:
                assert await hung_up(reader, 5) == b""
        await asyncio.sleep(0.2)
        for _ in range(5):
            await still_right(number)

    with running(linear_folder, tmp_path, "--max-connections", "20") as server:
        asyncio.run(main(port(server)))
        nothing_broke(server)


def busy(reply: Reply) -> bool:
    assert reply.status == 503, reply
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json["error"]
    return True


def test_clients_that_leave_take_nobody_with_them(hardened: Server) -> None:
    async def main() -> None:
        async def leave(data: bytes) -> None:
            async with connected(port(hardened)) as (_, writer):
                writer.write(data)
                await writer.drain()

        parts = [GOOD, GOOD[:-5], GOOD[:60], GOOD * 5]
        asked = [leave(parts[i % 4]) for i in range(400)]
        stayed = [exchange(port(hardened), GOOD) for _ in range(100)]
        for reply in (await asyncio.gather(*asked, *stayed))[400:]:
            assert reply is None or is_right(reply) if reply is None or reply.status == 200 else busy(reply)
            assert reply is not None
        deadline = time.monotonic() + 5
        while await counted(port(hardened), "model_requests_in_flight"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    asyncio.run(main())


# Too many, and bad neighbours


def test_a_full_queue_says_so_and_when_to_come_back(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "servable", slow(20_000))
    ask = post(
        json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]}]}).encode()
    )

    async def main(server: Server) -> None:
        replies = await asyncio.gather(*(exchange(port(server), ask, seconds=30) for _ in range(60)))
        health = await exchange(port(server), get("/v2/health/ready"))
        assert health is not None
        assert health.status == 200
        answered = [reply for reply in replies if reply is not None and reply.status == 200]
        refused = [reply for reply in replies if reply is not None and reply.status != 200]
        assert len(answered) + len(refused) == 60
        assert all(reply.tensors() == {"y": [2.0]} for reply in answered)
        assert all(busy(reply) for reply in refused)
        assert len(answered) >= 4
        assert len(refused) >= 30
        assert await counted(port(server), "model_rejected_total") == len(refused)
        # It is over as soon as it is over.
        again = await exchange(port(server), ask)
        assert again is not None
        assert again.tensors() == {"y": [2.0]}

    with running(folder, tmp_path, "--max-queue", "4") as server:
        asyncio.run(main(server))


def test_who_waited_too_long_is_told_so_and_costs_nothing(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "servable", slow(20_000))
    ask = post(
        json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]}]}).encode()
    )

    async def main(server: Server) -> None:
        began = time.monotonic()
        one = await exchange(port(server), ask)
        alone = time.monotonic() - began
        assert one is not None
        # Ten times what can be done in half a second.
        number = int(5 / alone) + 10
        began = time.monotonic()
        replies = await asyncio.gather(*(exchange(port(server), ask, seconds=30) for _ in range(number)))
        assert time.monotonic() - began < 2.5
        late = [reply for reply in replies if reply is not None and reply.status in (503, 504)]
        assert len(late) > number / 2
        for reply in late:
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json["error"]
        rest = [reply for reply in replies if reply not in late]
        assert rest
        for reply in rest:
            assert reply is not None
            assert reply.tensors() == {"y": [2.0]}

    with running(folder, tmp_path, "--request-timeout-seconds", "0.5", "--max-queue", "1000") as server:
        asyncio.run(main(server))


def lookup(path: Path) -> dict[str, Any]:
    """y = table[x] for a table of eight: fails for every other x."""
    info = helper.make_tensor_value_info
    save(
        helper.make_graph(
            [helper.make_node("Gather", ["table", "x"], ["y"])],
            "lookup",
            [info("x", TensorProto.INT64, ["n"])],
            [info("y", TensorProto.FLOAT, ["n"])],
            [numpy_helper.from_array(np.arange(8, dtype=np.float32) * 10, "table")],
        ),
        path,
    )
    return {"inputs": [tensor("x", "INT64", [-1])], "outputs": [tensor("y", "FP32", [-1])]}


def test_a_request_that_fails_in_the_model_fails_alone(tmp_path: Path) -> None:
    def ask(value: int) -> bytes:
        return post(
            json.dumps(
                {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [value]}]}
            ).encode()
        )

    async def main(server: Server) -> None:
        values = [i % 8 if i % 5 else 1000 + i for i in range(120)]
        replies = await asyncio.gather(*(exchange(port(server), ask(value)) for value in values))
        for value, reply in zip(values, replies, strict=True):
            assert reply is not None
            if value < 8:
                assert reply.status == 200, reply
                assert reply.tensors() == {"y": [value * 10.0]}
            else:
                assert reply.status != 200

    with running(write_servable(tmp_path / "servable", lookup), tmp_path, "--max-queue", "1000") as server:
        asyncio.run(main(server))


def centred(path: Path) -> dict[str, Any]:
    """y = x - mean of x over the rows: what one row gives depends on the others."""
    info = helper.make_tensor_value_info
    save(
        helper.make_graph(
            [
                helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
                helper.make_node("Sub", ["x", "mean"], ["y"]),
            ],
            "centred",
            [info("x", TensorProto.FLOAT, ["n", 4])],
            [info("y", TensorProto.FLOAT, ["n", 4])],
        ),
        path,
    )
    return {"inputs": [tensor("x", "FP32", [-1, 4])], "outputs": [tensor("y", "FP32", [-1, 4])]}


def first_rows(path: Path) -> dict[str, Any]:
    """y = the first row of x, whatever follows; its one row is declared as any number of rows."""
    info = helper.make_tensor_value_info
    save(
        helper.make_graph(
            [helper.make_node("Slice", ["x", "zero", "one"], ["y"])],
            "first_rows",
            [info("x", TensorProto.FLOAT, ["n", 4])],
            [info("y", TensorProto.FLOAT, ["m", 4])],
            [
                numpy_helper.from_array(np.array([i], dtype=np.int64), name)
                for i, name in enumerate(["zero", "one"])
            ],
        ),
        path,
    )
    return {"inputs": [tensor("x", "FP32", [-1, 4])], "outputs": [tensor("y", "FP32", [-1, 4])]}


@pytest.mark.parametrize("model", [linear(), centred, first_rows])
def test_company_never_changes_an_answer(tmp_path: Path, model: Any) -> None:
    """A model whose rows depend on one another looks, by its shapes, like one that can be batched."""
    numbers = np.random.default_rng(7)
    requests = [numbers.normal(size=(1 + i % 3, 4)).round(3) for i in range(150)]

    async def main(server: Server) -> None:
        asks = [post(json.dumps(infer_body(x.tolist())).encode()) for x in requests]
        alone = [await exchange(port(server), ask) for ask in asks[:30]]
        together = await asyncio.gather(*(exchange(port(server), ask) for ask in asks))
        for x, reply in zip(requests, together, strict=True):
            assert reply is not None
            assert reply.status == 200, reply
            wanted = {"centred": x - x.mean(axis=0), "first_rows": x[:1]}.get(
                model.__name__, expected(x.tolist())
            )
            np.testing.assert_allclose(
                np.reshape(reply.tensors()["y"], (-1, wanted.shape[1])), wanted, atol=1e-5
            )
        for one, many in zip(alone, together, strict=False):
            assert one is not None
            assert many is not None
            assert np.shape(one.tensors()["y"]) == np.shape(many.tensors()["y"])

    with running(write_servable(tmp_path / "servable", model), tmp_path, "--max-queue", "1000") as server:
        asyncio.run(main(server))
