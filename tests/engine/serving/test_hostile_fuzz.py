"""Ten thousand requests that nobody should send."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper, numpy_helper

from tests.engine.serving.fuzz import Case, Fuzzer
from tests.engine.serving.rawhttp import PATIENCE, Reply, exchange, get, read_reply, resident, sample
from tests.engine.serving.servables import BIAS, WEIGHT, Server, running, save, tensor, write_servable

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20_261_122
REQUESTS = 10_000
WARM_UP = 3_000
CONNECTIONS = 24
# After the warm-up memory must not grow with the number of requests: 7,000 of them, a leak of 2 kB each would show.
GROWTH_BYTES = 14 * 1024 * 1024


def linear_and_identity(path: Path) -> dict[str, Any]:
    """y = x @ W + b and z = k."""
    info = helper.make_tensor_value_info
    save(
        helper.make_graph(
            [helper.make_node("Gemm", ["x", "w", "b"], ["y"]), helper.make_node("Identity", ["k"], ["z"])],
            "linear_and_identity",
            [info("x", TensorProto.FLOAT, ["n", 4]), info("k", TensorProto.INT8, ["n", 2])],
            [info("y", TensorProto.FLOAT, ["n", 3]), info("z", TensorProto.INT8, ["n", 2])],
            [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")],
        ),
        path,
    )
    return {
        "inputs": [tensor("x", "FP32", [-1, 4]), tensor("k", "INT8", [-1, 2])],
        "outputs": [tensor("y", "FP32", [-1, 3]), tensor("z", "INT8", [-1, 2])],
    }


@dataclass
class Sender:
    """Sends cases over connections that are kept as long as the server keeps them."""

    port: int
    limited: bool = False  # the server's limits are so small that it may refuse what is right
    statuses: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    async def work(self, cases: asyncio.Queue[Case]) -> None:
        kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not cases.empty():
            case = cases.get_nowait()
            try:
                async with asyncio.timeout(PATIENCE):
                    if case.replies is None:
                        self.judge(case, await self.once(case))
                    else:
                        kept = await self.keep(case, kept)
            except TimeoutError:
                self.problems.append(f"{case.kind}: no answer within {PATIENCE} s: {case.data[:300]!r}")
                kept = None
            except AssertionError as error:
                self.problems.append(f"{case.kind}: {error} after {case.data[:300]!r}")
                kept = None
        if kept:
            kept[1].transport.abort()

    async def keep(self, case: Case, kept: Any) -> Any:
        """Send a whole request on a kept connection, or on a new one where the server closed that."""
        assert case.replies is not None
        for fresh in (kept is None, True):
            if kept is None:
                kept = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = kept
            replies: list[Reply] = []
            with contextlib.suppress(ConnectionError):
                writer.write(case.data)
                while len(replies) < case.replies and (one := await read_reply(reader, head=case.head)):
                    replies.append(one)
            if replies or fresh:
                break
            writer.transport.abort()
            kept = None
        self.judge(case, replies)
        if len(replies) < case.replies and not (self.limited and case.kind == "pipelined"):
            self.problems.append(f"{case.kind}: {len(replies)} answers to {case.data[:300]!r}")
        if len(replies) < case.replies or replies[-1].headers.get("connection", "").lower() == "close":
            writer.transport.abort()
            return None
        return kept

    async def once(self, case: Case) -> list[Reply]:
        """Send what may be no whole request, then say that no more will come; the server must hang up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        replies = []
        try:
            writer.write(case.data)
            first = asyncio.ensure_future(read_reply(reader))
            await asyncio.wait([first], timeout=0.03)
            writer.write_eof()
            one = await first
            while one is not None:
                replies.append(one)
                one = await read_reply(reader)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the server hung up on what it had not read: that is an answer
        finally:
            writer.transport.abort()
        return replies

    def judge(self, case: Case, replies: list[Reply]) -> None:
        for reply in replies or [None]:
            self.statuses[case.kind, reply.status if reply else None] += 1
        try:
            for reply in replies:
                blames_the_sender(reply, case.head)
            refused = self.limited and any(reply.status in (413, 503) for reply in replies)
            if case.check and len(replies) == case.replies and not refused:
                case.check(replies)
        except AssertionError as error:
            self.problems.append(f"{case.kind}: {error} for {case.data[:600]!r}"[:1500])


def blames_the_sender(reply: Reply, head: bool) -> None:
    assert reply.status == 200 or 400 <= reply.status < 500 or reply.status == 503, reply
    if reply.status == 200 or head:
        return
    # A sender must not choose how much it is sent back.
    assert len(reply.body) < 4096, f"{len(reply.body)} bytes of error"
    assert reply.headers["content-type"] == "application/json"
    assert isinstance(reply.json["error"], str)
    assert reply.json["error"]


async def send(port: int, fuzzer: Fuzzer, number: int, *, limited: bool = False) -> Sender:
    sender = Sender(port, limited)
    cases: asyncio.Queue[Case] = asyncio.Queue()
    for _ in range(number):
        cases.put_nowait(fuzzer.case())
    await asyncio.gather(*(sender.work(cases) for _ in range(CONNECTIONS)))
    return sender


async def metrics(server: Server) -> str:
    reply = await exchange(server.ready["port"], get("/metrics"))
    assert reply is not None
    return reply.body.decode()


async def attack(server: Server) -> list[Sender]:
    port, fuzzer = server.ready["port"], Fuzzer(SEED)
    warm = await send(port, fuzzer, WARM_UP)
    before = resident(server.process.pid)
    rest = await send(port, fuzzer, REQUESTS - WARM_UP)
    grown = resident(server.process.pid) - before
    assert grown < GROWTH_BYTES, f"memory grew by {grown / 2**20:.1f} MiB"
    return [warm, rest]


def test_ten_thousand_fuzzed_requests(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "servable", linear_and_identity)
    with running(folder, tmp_path) as server:
        senders = asyncio.run(attack(server))
        no_problems(*senders)

        # The seed really reached the model, the validation and the HTTP parser.
        statuses = senders[0].statuses + senders[1].statuses
        assert sum(statuses.values()) >= REQUESTS
        answered = sum(count for (_, status), count in statuses.items() if status == 200)
        assert answered > REQUESTS / 4, statuses
        assert statuses["mutated_json", 400] > 500, statuses
        assert statuses["mutated_binary", 400] > 300, statuses

        nothing_is_left(server)


def test_a_server_with_small_limits_refuses_and_never_fails(tmp_path: Path) -> None:
    limits = {"body-bytes": 3000, "memory-bytes": 2000, "queue": 2, "batch-size": 1}
    options = [part for name, value in limits.items() for part in (f"--max-{name}", str(value))]
    folder = write_servable(tmp_path / "servable", linear_and_identity)
    with running(folder, tmp_path, *options) as server:
        sender = asyncio.run(send(server.ready["port"], Fuzzer(SEED), 2_500, limited=True))
        no_problems(sender)
        for status in (200, 400, 413, 503):
            assert sum(count for (_, one), count in sender.statuses.items() if one == status) > 10, status
        text = asyncio.run(metrics(server))
        for reason in ("memory", "queue_full", "too_large"):
            assert sample(text, "model_rejected_total", f'reason="{reason}"') > 0, reason
        nothing_is_left(server)


def no_problems(*senders: Sender) -> None:
    problems = [problem for sender in senders for problem in sender.problems]
    # One of each kind says more than many of one.
    of_a_kind = {problem.split(":")[0]: problem for problem in problems}
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(of_a_kind.values())


def nothing_is_left(server: Server) -> None:
    """It answers as before, and no sender made its metrics or its log grow."""
    text = asyncio.run(metrics(server))
    assert sample(text, "model_requests_in_flight") == 0
    assert sample(text, "model_request_duration_seconds_count", 'code="500"') == 0
    assert len(text) < 64 * 1024
    log = server.log.read_text(errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") - 300 :][:3000]
    assert len(log) < 256 * 1024
    well_formed = Fuzzer(SEED + 1).well_formed()
    reply = asyncio.run(exchange(server.ready["port"], well_formed.data))
    assert well_formed.check
    well_formed.check([reply] if reply else [])
    assert server.process.poll() is None
