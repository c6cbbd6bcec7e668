"""Real ONNX models and servable folders for tests; the deployment tests use them too."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

REPOSITORY = Path(__file__).resolve().parents[3]
WEIGHT = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 0, 1]], dtype=np.float32) / 7
BIAS = np.array([0.5, -0.25, 0.125], dtype=np.float32)

Writer = Callable[[Path], dict[str, Any]]


def tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def linear(scale: float = 1.0) -> Writer:
    """y = scale * (x @ W + b), label = argmax(y)."""

    def write(path: Path) -> dict[str, Any]:
        nodes = [
            helper.make_node("Gemm", ["x", "w", "b"], ["y"]),
            helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
        ]
        graph = helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3]),
                helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            ],
            [
                numpy_helper.from_array((WEIGHT * scale).astype(np.float32), "w"),
                numpy_helper.from_array((BIAS * scale).astype(np.float32), "b"),
            ],
        )
        save(graph, path)
        return {
            "inputs": [tensor("x", "FP32", [-1, 4])],
            "outputs": [tensor("y", "FP32", [-1, 3]), tensor("label", "INT64", [-1])],
        }

    return write


def elementwise(operator: str, element: int = TensorProto.FLOAT, datatype: str = "FP32") -> Writer:
    """y = operator(x), for any number of rows."""

    def write(path: Path) -> dict[str, Any]:
        graph = helper.make_graph(
            [helper.make_node(operator, ["x"], ["y"])],
            "elementwise",
            [helper.make_tensor_value_info("x", element, ["n"])],
            [helper.make_tensor_value_info("y", element, ["n"])],
        )
        save(graph, path)
        return {"inputs": [tensor("x", datatype, [-1])], "outputs": [tensor("y", datatype, [-1])]}

    return write


def broken(path: Path) -> dict[str, Any]:
    """Look up row x - 10 of a table of three: loads, and fails for every x that is zero."""
    graph = helper.make_graph(
        [helper.make_node("Sub", ["x", "ten"], ["row"]), helper.make_node("Gather", ["table", "row"], ["y"])],
        "broken",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [
            numpy_helper.from_array(np.array(10, dtype=np.int64), "ten"),
            numpy_helper.from_array(np.ones(3, dtype=np.float32), "table"),
        ],
    )
    save(graph, path)
    return {"inputs": [tensor("x", "INT64", [-1])], "outputs": [tensor("y", "FP32", [-1])]}


def wide(path: Path) -> dict[str, Any]:
    """Give columns 0 to 3 of x: fails where x has fewer, as a guess of one column does."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "columns"], ["y"], axis=1)],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "columns"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.arange(4, dtype=np.int64), "columns")],
    )
    save(graph, path)
    return {"inputs": [tensor("x", "FP32", [-1, -1])], "outputs": [tensor("y", "FP32", [-1, 4])]}


def slow(iterations: int) -> Writer:
    """y = x, after a loop that keeps the CPU busy."""

    def write(path: Path) -> dict[str, Any]:
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["again"], ["again_out"]),
                helper.make_node("Abs", ["v"], ["v_out"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("again", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v", TensorProto.FLOAT, [1]),
            ],
            [
                helper.make_tensor_value_info("again_out", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [1]),
            ],
        )
        graph = helper.make_graph(
            [helper.make_node("Loop", ["count", "yes", "x"], ["y"], body=body)],
            "slow",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
            [
                numpy_helper.from_array(np.array(iterations, dtype=np.int64), "count"),
                numpy_helper.from_array(np.array(True), "yes"),
            ],
        )
        save(graph, path)
        return {"inputs": [tensor("x", "FP32", [1])], "outputs": [tensor("y", "FP32", [1])]}

    return write


def save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_servable(folder: Path, write: Writer | None = None, **changes: Any) -> Path:
    """Write a servable folder; `changes` replace fields of servable.json."""
    folder.mkdir(parents=True)
    signature = (write or linear())(folder / "model.onnx")
    document = {
        "schema_version": 1,
        "name": "tiny",
        "version": "v1",
        "model": {"file": "model.onnx", "precision": "fp32"},
        "signature": signature,
        "session": {
            "intra_op_threads": 1,
            "inter_op_threads": 1,
            "graph_optimization_level": "all",
            "disabled_optimizers": [],
            "allow_spinning": False,
        },
        "golden": None,
        "files": [entry(folder, "model.onnx")],
        **changes,
    }
    (folder / "servable.json").write_text(json.dumps(document))
    return folder


def entry(folder: Path, path: str) -> dict[str, Any]:
    data = (folder / path).read_bytes()
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((folder / "servable.json").read_text())
    change(document)
    (folder / "servable.json").write_text(json.dumps(document))


@dataclass
class Server:
    """A server process under test."""

    process: subprocess.Popen[bytes]
    ready_file: Path
    log: Path

    @property
    def ready(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.ready_file.read_text())
        return value

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ready['port']}"


@contextlib.contextmanager
def running(folder: Path, work: Path, *options: str, fds: Sequence[int] = ()) -> Iterator[Server]:
    """Run the real server on a servable until the block ends."""
    work.mkdir(parents=True, exist_ok=True)
    server = Server(start(folder, work, *options, fds=fds), work / "ready.json", work / "server.log")
    try:
        until(lambda: server.ready_file.exists() or server.process.poll() is not None, "the server is ready")
        assert server.process.poll() is None, server.log.read_text()
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        if server.process.stdin:
            server.process.stdin.close()


def start(folder: Path, work: Path, *options: str, fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "airflow_model_deploy.engine.serving", "--servable", str(folder)]
    with (work / "server.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--ready-file", str(work / "ready.json"), *options],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=fds,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def request(url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Ask over a connection of its own; return the status and the decoded JSON, or text."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=20) as response:
            status, raw = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    try:
        return status, json.loads(raw)
    except ValueError:
        return status, raw.decode()


def infer_body(rows: list[list[float]]) -> dict[str, Any]:
    flat = [value for row in rows for value in row]
    return {"inputs": [{"name": "x", "shape": [len(rows), 4], "datatype": "FP32", "data": flat}]}


def expected(rows: list[list[float]], scale: float = 1.0) -> np.ndarray[Any, Any]:
    """The linear model in float64."""
    answer: np.ndarray[Any, Any] = scale * (
        np.array(rows, dtype=np.float64) @ WEIGHT.astype(np.float64) + BIAS
    )
    return answer
