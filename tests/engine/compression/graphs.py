"""ONNX graphs by hand, with every way in which a weight reaches its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path


def language_model(
    path: Path, *, seed: int = 0, sparse: float = 0.0, opset: int = 20, **save: object
) -> Path:
    """Tokens [batch, length] -> logits: tied embeddings, two products of one input, a Gemm, activations' product."""
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) / np.sqrt(shape[0])
        values[rng.random(shape) < sparse] = 0
        return numpy_helper.from_array(values.astype(np.float32), name)

    weights = [
        weight("table", 211, 96), weight("up_w", 96, 200), weight("gate_w", 96, 200), weight("down_w", 200, 96),
        weight("gemm_w", 96, 96), weight("gemm_b", 96), numpy_helper.from_array(np.array([-1, 96]), "flat"),
        numpy_helper.from_array(np.array([-1]), "rest"),
    ]  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "tokens"], ["x"], name="embed"),
        node("MatMul", ["x", "up_w"], ["up"], name="up"),
        node("MatMul", ["x", "gate_w"], ["gate"], name="gate"),
        node("Sigmoid", ["gate"], ["opened"]),
        node("Mul", ["up", "opened"], ["inner"]),
        node("MatMul", ["inner", "down_w"], ["down"], name="down"),
        node("Add", ["x", "down"], ["h"]),
        node("Transpose", ["h"], ["ht"], perm=[0, 2, 1]),
        node("MatMul", ["h", "ht"], ["scores"], name="scores"),
        node("Softmax", ["scores"], ["shares"], axis=-1),
        node("MatMul", ["shares", "h"], ["mixed"], name="mix"),
        node("Reshape", ["mixed", "flat"], ["rows"]),
        node("Gemm", ["rows", "gemm_w", "gemm_b"], ["g"], transB=1, name="gemm"),
        node("Transpose", ["table"], ["head_w"], perm=[1, 0], name="turn"),
        node("MatMul", ["g", "head_w"], ["l"], name="head"),
        node("Shape", ["tokens"], ["size"]),
        node("Concat", ["size", "rest"], ["whole"], axis=0),
        node("Reshape", ["l", "whole"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "language", [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", 211])], weights,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(made, path, **save)
    return path


def product(path: Path, weight: np.ndarray, *, gemm: bool = False) -> Path:
    """Y = x·W, or with gemm y = x·Wᵀ for the same W [rows, columns] stored transposed."""
    stored = np.ascontiguousarray(weight.T) if gemm else weight
    extra = {"transB": 1} if gemm else {}
    graph = helper.make_graph(
        [helper.make_node("Gemm" if gemm else "MatMul", ["x", "w"], ["y"], name="it", **extra)], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [numpy_helper.from_array(stored, "w")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    onnx.save(made, path)
    return path


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def operators(path: Path) -> list[str]:
    return [n.op_type for n in onnx.load(path).graph.node]
