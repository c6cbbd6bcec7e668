"""A small ONNX model and its way to a tested servable, for tests of what comes after."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def write_model(path, seed):
    """y = relu(x @ w): 8 numbers to 4."""
    weights = np.random.default_rng(seed).standard_normal((8, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return weights


def evaluated(run, name, source):
    """Take an ONNX file to (the built servable, its evaluation) by run(step, spec, **inputs)."""
    model = run("ingest", {"name": name, "source": str(source)})
    quantized = run("quantize", {"mode": "none"}, model=model)
    built = run("build", {}, model=quantized, baseline=model)
    return built, run("test", {"max_quality_drop": None}, servable=built, baseline=model)
