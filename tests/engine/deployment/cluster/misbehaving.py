"""What a model computes besides its answer so that it fails, dawdles or swells: parts of ONNX graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1000.0
"""A model that misbehaves on some inputs does so where one value is above this; no golden input is."""
HIGH = 5 * LIMIT
MEMORY_BYTES = 400 << 20
"""What `much_memory` takes besides the server's own, about 100 MB."""
_SIDE = 256  # of a square matrix: one product takes about half a millisecond of one core

Graph = tuple[list[Any], dict[str, Any]]
"""Nodes that give `extra`, which is 0 and is added to the answer, and their constants."""


def is_high() -> list[Any]:
    return [
        helper.make_node("ReduceMax", ["x"], ["peak"], keepdims=0),
        helper.make_node("Greater", ["peak", "limit"], ["high"]),
    ]


def impossible_shape() -> Graph:
    """Reshape one number to seven where an input is high: the runtime fails, the server answers 500."""
    nodes = [
        helper.make_node("Where", ["high", "seven", "one"], ["size"]),
        helper.make_node("Reshape", ["zero", "size"], ["extra"]),
    ]
    return nodes, {"seven": np.array([7], np.int64), "one": np.array([1], np.int64)}


def products(high: int, low: int) -> Callable[[], Graph]:
    """Multiply matrices this often where an input is high, and that often where none is."""

    def graph() -> Graph:
        value = helper.make_tensor_value_info
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["again"], ["again_out"]),
                helper.make_node("MatMul", ["v", "mean"], ["v_out"]),
            ],
            "body",
            [
                value("i", TensorProto.INT64, []),
                value("again", TensorProto.BOOL, []),
                value("v", TensorProto.FLOAT, [_SIDE, _SIDE]),
            ],
            [value("again_out", TensorProto.BOOL, []), value("v_out", TensorProto.FLOAT, [_SIDE, _SIDE])],
        )
        one = numpy_helper.from_array(np.ones(1, np.float32))
        # Every row's mean again and again: of ones, which stay ones.
        share = numpy_helper.from_array(np.full(1, 1 / _SIDE, np.float32))
        nodes = [
            helper.make_node("ConstantOfShape", ["square"], ["ones"], value=one),
            helper.make_node("ConstantOfShape", ["square"], ["mean"], value=share),
            helper.make_node("Where", ["high", "count_high", "count_low"], ["count"]),
            helper.make_node("Loop", ["count", "yes", "ones"], ["last"], body=body),
            helper.make_node("ReduceMax", ["last"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "zero"], ["extra"]),
        ]
        return nodes, {
            "square": np.array([_SIDE, _SIDE], np.int64),
            "count_high": np.int64(high),
            "count_low": np.int64(low),
            "yes": np.bool_(True),
        }

    return graph


def much_memory() -> Graph:
    """Fill a tensor whose size the optimizer can't know before an input is there."""
    one = numpy_helper.from_array(np.ones(1, np.float32))
    nodes = [
        helper.make_node("Where", ["high", "size", "size_too"], ["many"]),
        helper.make_node("ConstantOfShape", ["many"], ["block"], value=one),
        helper.make_node("ReduceMax", ["block"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "zero"], ["extra"]),
    ]
    size = np.array([MEMORY_BYTES // 4], np.int64)
    return nodes, {"size": size, "size_too": size}
