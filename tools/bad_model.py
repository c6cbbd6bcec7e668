"""Makes a release that only real traffic shows to be bad: right for every sample of the test, an error for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 4.0  # the samples go to 1


def write_bad_model(good: Path, path: Path) -> Path:
    """Write a copy of an ONNX model that fails in the runtime where a value of its first input is above `LIMIT`.

    A number is reshaped to one number, or to seven where the input is high, which the runtime can't; it is zero, and
    added to the answer.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(good)
    graph = model.graph
    given, answer = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == answer:
                node.output[place] = "right_answer"
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [given], ["peak"], keepdims=0),
            helper.make_node("Greater", ["peak", "limit"], ["high"]),
            helper.make_node("Where", ["high", "seven", "one"], ["size"]),
            helper.make_node("Reshape", ["zero", "size"], ["nothing"]),
            helper.make_node("Add", ["right_answer", "nothing"], [answer]),
        ]
    )
    constants = {
        "limit": np.array(LIMIT, np.float32),
        "zero": np.zeros(1, np.float32),
        "seven": np.array([7], np.int64),
        "one": np.array([1], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path
