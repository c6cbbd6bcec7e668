"""What runs together, and that nobody can tell by the answers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.serving import batching as batching_module
from airflow_model_deploy.engine.serving import servable as reader
from airflow_model_deploy.engine.serving.answers import Encoder
from airflow_model_deploy.engine.serving.batching import Batcher, Job
from airflow_model_deploy.engine.serving.execution import Execution
from airflow_model_deploy.engine.serving.independence import why_not_together
from airflow_model_deploy.engine.serving.limits import Limits
from airflow_model_deploy.engine.serving.metrics import Metrics
from airflow_model_deploy.engine.serving.observing import Observer
from airflow_model_deploy.engine.serving.request import Answer, Request, RequestError
from airflow_model_deploy.engine.serving.session import open_session
from tests.engine.serving.servables import expected, linear, save, slow, tensor, write_servable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

OUTPUTS = ("y", "label")


class Recorder(Execution):
    """Stands for the model: says who ran with whom, and can be held."""

    def __init__(self, inner: Execution) -> None:
        self.inner = inner
        self.batches: list[list[str | None]] = []
        self.threads: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        assert self.go.wait(10)
        self.threads.append(threading.current_thread().name)
        self.batches.append([request.id for request in requests])
        return self.inner.run(requests)


@contextmanager
def batcher(
    folder: Path, *, together: bool = True, **limits: Any
) -> Iterator[tuple[Batcher, Recorder, Metrics]]:
    model = reader.load(folder)
    session = open_session(model)
    metrics = Metrics(model, 0.0)
    recorder = Recorder(Execution(session, Encoder(model), Observer(metrics.inputs, {})))
    with ThreadPoolExecutor(1) as pool:
        # A second a run: everything goes through the thread, which the test can hold.
        made = Batcher(
            recorder,
            Limits(**limits),
            metrics,
            pool,
            together=together,
            expected_seconds=1e9,
        )
        yield made, recorder, metrics
        recorder.go.set()


def request(name: str, rows: int = 1, outputs: tuple[str, ...] = OUTPUTS, columns: int = 4) -> Request:
    x = np.random.default_rng(len(name) + rows).normal(size=(rows, columns)).astype(np.float32)
    return Request({"x": x}, outputs, name, frozenset(outputs), rows, (outputs, (columns,)))


def ask(made: Batcher, asked: Request) -> tuple[asyncio.Future[Answer], Job]:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return answer, made.submit(asked, answer.set_result)


async def until_running(made: Batcher) -> None:
    while made._waiting:
        await asyncio.sleep(0)


async def ask_behind(made: Batcher, recorder: Recorder, requests: list[Request]) -> list[Answer]:
    """Ask for all while the first one runs."""
    recorder.go.clear()
    futures = [ask(made, requests[0])[0]]
    await until_running(made)
    futures += [ask(made, asked)[0] for asked in requests[1:]]
    recorder.go.set()
    return await asyncio.gather(*futures)


def test_an_idle_model_runs_at_once_and_what_queued_meanwhile_is_the_next_batch(linear_folder: Path) -> None:
    with batcher(linear_folder) as (made, recorder, metrics):
        requests = [request(name) for name in "abcd"]
        answers = asyncio.run(ask_behind(made, recorder, requests))
        assert recorder.batches == [["a"], ["b", "c", "d"]]
        sizes = metrics.registry.get_sample_value
        labels = {"model": "tiny", "version": "v1"}
        assert sizes("model_batch_size_count", labels) == 2
        assert sizes("model_batch_size_sum", labels) == 4
        assert sizes("model_queue_seconds_count", labels) == 4
    assert [answer.status for answer in answers] == [200] * 4


def test_only_requests_that_fit_run_together_and_none_is_passed_over(linear_folder: Path) -> None:
    with batcher(linear_folder, max_batch_size=4) as (made, recorder, _):
        requests = [
            request("first"),
            request("a", rows=3),
            request("other", outputs=("y",)),
            request("b", rows=2),
            request("c", rows=1),
            request("large", rows=9),
        ]
        answers = asyncio.run(ask_behind(made, recorder, requests))
        assert recorder.batches == [["first"], ["a", "c"], ["other"], ["b"], ["large"]]
    assert [answer.status for answer in answers] == [200] * 6


def values(answer: Answer) -> np.ndarray[Any, Any]:
    assert answer.header_length is not None
    tail = answer.body[answer.header_length :]
    rows = len(tail) // 20
    return np.frombuffer(tail[: rows * 12], np.float32).reshape(rows, 3)


def test_answers_are_those_of_each_request_alone(linear_folder: Path) -> None:
    requests = [request("abcdefgh"[: i + 1], rows=i % 3 + 1) for i in range(8)]
    with batcher(linear_folder) as (made, recorder, _):
        answers = asyncio.run(ask_behind(made, recorder, requests))
        assert len(recorder.batches) == 2
    for asked, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(values(answer), expected(asked.inputs["x"].tolist()), rtol=1e-5, atol=1e-6)


def test_without_leave_to_batch_each_runs_alone(linear_folder: Path) -> None:
    with batcher(linear_folder, together=False) as (made, recorder, _):
        asyncio.run(ask_behind(made, recorder, [request(name) for name in "abc"]))
        assert recorder.batches == [["a"], ["b"], ["c"]]


def lookup(path: Path) -> dict[str, Any]:
    """y = table[x]: fails where x is no row of a table of three."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([10, 20, 30], dtype=np.float32), "table")],
    )
    save(graph, path)
    return {"inputs": [tensor("x", "INT64", [-1])], "outputs": [tensor("y", "FP32", [-1])]}


def test_a_request_that_fails_fails_alone(tmp_path: Path) -> None:
    def index(value: int) -> Request:
        return Request({"x": np.array([value])}, ("y",), str(value), frozenset({"y"}), 1, ("y",))

    with batcher(write_servable(tmp_path / "s", lookup)) as (made, recorder, _):
        answers = asyncio.run(ask_behind(made, recorder, [index(i) for i in (0, 1, 9, 2)]))
        assert recorder.batches == [["0"], ["1", "9", "2"]]
    assert [answer.status // 100 for answer in answers[:2]] == [2, 2]
    assert answers[2].status in (400, 500)
    assert [np.frombuffer(answers[i].body[-4:], np.float32)[0] for i in (0, 1, 3)] == [10, 20, 30]


def test_who_has_left_is_not_run(linear_folder: Path) -> None:
    async def scenario() -> None:
        recorder.go.clear()
        first, _ = ask(made, request("a"))
        await until_running(made)
        _, job = ask(made, request("b"))
        last, _ = ask(made, request("c"))
        made.leave(job)
        recorder.go.set()
        await asyncio.gather(first, last)

    with batcher(linear_folder) as (made, recorder, _):
        asyncio.run(scenario())
        assert recorder.batches == [["a"], ["c"]]


def test_a_full_queue_refuses_and_goes_on(linear_folder: Path) -> None:
    async def scenario() -> None:
        recorder.go.clear()
        futures = [ask(made, request("a"))[0]]
        await until_running(made)
        futures += [ask(made, request(name))[0] for name in "bc"]
        with pytest.raises(RequestError, match="2 requests wait already") as caught:
            ask(made, request("d"))
        assert (caught.value.status, caught.value.reason) == (503, "queue_full")
        recorder.go.set()
        await asyncio.gather(*futures)
        assert (await ask(made, request("e"))[0]).status == 200

    with batcher(linear_folder, max_queue=2) as (made, recorder, _):
        asyncio.run(scenario())


def test_who_waits_too_long_is_told_so_while_the_model_still_runs_and_is_never_run(
    linear_folder: Path,
) -> None:
    async def scenario() -> Answer:
        recorder.go.clear()
        first, _ = ask(made, request("a"))
        await until_running(made)
        answer = await asyncio.wait_for(ask(made, request("b"))[0], 5)
        recorder.go.set()
        await first
        return answer

    with batcher(linear_folder, request_timeout_seconds=0.05) as (made, recorder, _):
        answer = asyncio.run(scenario())
        assert recorder.batches == [["a"]]
    assert (answer.status, answer.reason) == (504, "queue_timeout")
    assert b"waited 0.05 s" in answer.body


def test_a_failure_that_nobody_expected_answers_everybody(linear_folder: Path) -> None:
    async def scenario() -> list[Answer]:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        return await asyncio.gather(*(ask(made, request(name))[0] for name in "ab"))

    with batcher(linear_folder) as (made, recorder, _):
        recorder.inner = None  # type: ignore[assignment]
        assert [answer.status for answer in asyncio.run(scenario())] == [500, 500]
        assert made._busy is False


def test_a_delay_waits_for_company(linear_folder: Path) -> None:
    async def scenario() -> None:
        futures = [ask(made, request("a"))[0]]
        await asyncio.sleep(0.01)
        futures.append(ask(made, request("b"))[0])
        await asyncio.gather(*futures)

    with batcher(linear_folder, max_delay_seconds=0.1) as (made, recorder, _):
        asyncio.run(scenario())
        assert recorder.batches == [["a", "b"]]


def test_short_runs_stay_in_the_loop_and_long_ones_leave_it(
    linear_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching_module, "_INLINE_SECONDS", 1.0)

    async def scenario(seconds: float) -> None:
        made._recent = seconds
        await ask(made, request("a"))[0]

    with batcher(linear_folder) as (made, recorder, _):
        asyncio.run(scenario(0.001))
        asyncio.run(scenario(30.0))
        assert [name == "MainThread" for name in recorder.threads] == [True, False]


def rows_mixed(operator: str) -> Any:
    def write(path: Path) -> dict[str, Any]:
        nodes = {
            "mean": [
                helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
                helper.make_node("Sub", ["x", "m"], ["y"]),
            ],
            "softmax": [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
            "dynamic quantization": [
                helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
            ],
            "no batch": [helper.make_node("Relu", ["x"], ["y"])],
        }[operator]
        batch = 2 if operator == "no batch" else -1
        size: Any = 2 if operator == "no batch" else "n"
        graph = helper.make_graph(
            nodes,
            "mixed",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size, 3])],
        )
        save(graph, path)
        return {"inputs": [tensor("x", "FP32", [batch, 3])], "outputs": [tensor("y", "FP32", [batch, 3])]}

    return write


@pytest.mark.parametrize("operator", ["mean", "softmax", "dynamic quantization", "no batch"])
def test_a_model_whose_rows_are_not_independent_is_not_batched(tmp_path: Path, operator: str) -> None:
    model = reader.load(write_servable(tmp_path / "s", rows_mixed(operator)))
    reason = why_not_together(open_session(model), model)
    assert reason is not None
    assert ("varying first size" if operator == "no batch" else "depends on the other rows") in reason


@pytest.mark.parametrize(("write", "may"), [(linear(), True), (lookup, True), (slow(3), False)])
def test_a_model_whose_rows_are_independent_is_batched(tmp_path: Path, write: Any, may: bool) -> None:
    model = reader.load(write_servable(tmp_path / "s", write))
    assert (why_not_together(open_session(model), model) is None) is may
