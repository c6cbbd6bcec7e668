"""An ONNX file as it comes from elsewhere: no torch, an old opset, a name in every place, a batch of its own."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write(path, opset=13, batch="N", seed=0):
    """Write a classifier of 6 features in 3 kinds; returns (weights of both layers) for an independent answer."""
    random = np.random.default_rng(seed)
    first = random.normal(0, 0.6, (6, 64)).astype("float32")
    second = random.normal(0, 0.6, (64, 3)).astype("float32")
    bias = random.normal(0, 0.1, 64).astype("float32")
    nodes = [
        helper.make_node("MatMul", ["float_input:0", "W1"], ["h"], name="dense/MatMul"),
        helper.make_node("Add", ["h", "b1"], ["a"], name="dense/BiasAdd"),
        helper.make_node("Relu", ["a"], ["r"], name="dense/Relu"),
        helper.make_node("MatMul", ["r", "W2"], ["scores"], name="out/MatMul"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], name="out/Softmax", axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], name="label", axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "from elsewhere",
        [helper.make_tensor_value_info("float_input:0", TensorProto.FLOAT, [batch, 6])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [batch]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, 3]),
        ],
        [numpy_helper.from_array(a, n) for n, a in (("W1", first), ("b1", bias), ("W2", second))],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="elsewhere"
    )
    model.ir_version = 7
    onnx.save(model, path)


def load(split, labelled=True, seed=0):
    """Data for it: kinds as the file itself has them, since nobody else knows."""
    random = np.random.default_rng([seed, len(split)])
    inputs = random.normal(size=(200, 6)).astype("float32")
    weights = np.random.default_rng(0)
    first, second = weights.normal(0, 0.6, (6, 64)), weights.normal(0, 0.6, (64, 3))
    bias = weights.normal(0, 0.1, 64)
    kinds = (np.maximum(inputs @ first + bias, 0) @ second).argmax(1)
    return {"float_input:0": inputs}, kinds if labelled else None
