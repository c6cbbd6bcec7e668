"""A large ONNX model of random weights, and what quantizing it takes: `python benchmarks/_large_onnx.py --help`."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NARROW, WIDE = 2048, 5632
_PAIR = 2 * NARROW * WIDE * 4  # bytes of one pair of products
_EVERY = 0.005  # seconds between two looks at the memory


def make_model(path: str | Path, gigabytes: float = 1.1, *, seed: int = 0) -> int:
    """Write products 2048 -> 5632 -> 2048 -> ... in float32, weights in `<path>.data`; returns all bytes.

    Needs the memory of one weight (46 MB), not of the model.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    path = Path(path)
    count = 2 * max(1, round(gigabytes * 1e9 / _PAIR))
    rng, data = np.random.default_rng(seed), path.with_name(f"{path.name}.data")
    weights, nodes, last = [], [], "x"
    with data.open("wb") as file:
        for i in range(count):
            shape = (NARROW, WIDE) if i % 2 == 0 else (WIDE, NARROW)
            values = rng.standard_normal(shape, np.float32)
            values /= np.sqrt(np.float32(shape[0]))
            tensor = TensorProto(name=f"w{i}", dims=shape, data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", values.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            values.tofile(file)
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"h{i}"], name=f"product{i}"))
            last = f"h{i}"
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", NARROW])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", NARROW])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path.stat().st_size + data.stat().st_size


def watched(work: Callable[[], None]) -> dict[str, float]:
    """{"peak_bytes_over_imports", "seconds"} of a piece of work in this process.

    Memory is the resident set, looked at every 5 ms, and what the kernel says was its highest ever if the work
    made it so.
    """
    import psutil

    process, stop = psutil.Process(), threading.Event()
    before, highest_before = process.memory_info().rss, _highest()
    seen = [before]

    def look() -> None:
        while not stop.wait(_EVERY):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    begin = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - begin
        stop.set()
        watcher.join()
    highest = _highest()
    peak = max(*seen, highest if highest > highest_before else 0)
    return {"peak_bytes_over_imports": peak - before, "seconds": round(seconds, 3)}


def _highest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def quantize(source: str | Path, target: str | Path, wanted: str) -> dict[str, float]:
    """Give every product one format; {"peak_bytes_over_imports", "model_bytes", "quantized_bytes", "seconds"}."""
    import numpy as np  # noqa: F401 - imported before the memory is looked at
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    from airflow_model_deploy.engine.compression import quantize_mixed, weighted_nodes
    from airflow_model_deploy.engine.models import file_size

    formats = {node.name: wanted for node in weighted_nodes(source)}
    found = watched(lambda: quantize_mixed(source, target, formats))  # type: ignore[arg-type]
    return {**found, "model_bytes": file_size(source), "quantized_bytes": file_size(target)}


def main(arguments: list[str]) -> None:
    """Make a model, or quantize one and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write a model of random weights")
    make.add_argument("path")
    make.add_argument("--gigabytes", type=float, default=1.1)
    one = commands.add_parser("quantize", help="quantize every product of a model")
    one.add_argument("source")
    one.add_argument("target")
    one.add_argument("format", choices=("int8-dynamic", "int8-weight", "int4-weight"))
    given = parser.parse_args(arguments)
    if given.command == "make":
        print(json.dumps({"model_bytes": make_model(given.path, given.gigabytes)}))
    else:
        print(json.dumps(quantize(given.source, given.target, given.format)))


if __name__ == "__main__":
    main(sys.argv[1:])
