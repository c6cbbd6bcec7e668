"""What a layer costs alone: its time and bytes, in every format, whatever way its weight reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.compression import layer_costs, weighted_nodes
from airflow_model_deploy.engine.compression.layer_costs import values_inside
from tests.engine.compression.graphs import language_model

if TYPE_CHECKING:
    from pathlib import Path


def graph(path: Path, nodes: list, inputs: dict, outputs: dict, weights: dict[str, np.ndarray]) -> Path:
    def values(named: dict) -> list:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in named.items()]

    made = helper.make_graph(
        nodes,
        "layers",
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=8), path)
    return path


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def test_a_large_product_costs_more_and_layers_alike_are_measured_once(tmp_path: Path) -> None:
    node = helper.make_node
    path = graph(
        tmp_path / "m.onnx",
        [
            node("MatMul", ["x", "a"], ["h"], name="first"),
            node("MatMul", ["h", "b"], ["i"], name="second"),
            node("MatMul", ["i", "c"], ["y"], name="large"),
        ],
        {"x": (FLOAT, ["n", 96])},
        {"y": (FLOAT, ["n", 2048])},
        {"a": normal(96, 96), "b": normal(96, 96), "c": normal(96, 2048)},
    )
    formats = dict.fromkeys(("first", "second", "large"), ("int8-dynamic", "int8-weight", "int4-weight"))
    found = layer_costs(path, formats, {"x": normal(8, 96)})
    assert found["first"] is found["second"]
    small, large = found["first"], found["large"]
    assert (
        set(large.milliseconds) == {"fp32", "int8-dynamic", "int8-weight", "int4-weight"} == set(large.bytes)
    )
    assert all(large.milliseconds[f] > 3 * small.milliseconds[f] > 0 for f in ("fp32", "int8-dynamic"))
    assert large.bytes["fp32"] == 4 * 96 * 2048
    assert large.bytes["int8-dynamic"] == pytest.approx(large.bytes["fp32"] / 4, rel=0.1)
    assert large.bytes["int8-weight"] == pytest.approx(
        large.bytes["fp32"] / 4, rel=0.4
    )  # rows are filled up to 128
    assert large.bytes["int4-weight"] == pytest.approx(
        large.bytes["fp32"] * 5 / 32, rel=0.05
    )  # scales: a bit each
    assert not [p for p in tmp_path.iterdir() if p.name != "m.onnx"], "nothing is written beside a model"


def test_every_way_in_which_a_weight_reaches_its_node(tmp_path: Path) -> None:
    path = language_model(tmp_path / "m.onnx")
    nodes = weighted_nodes(path)
    tokens = np.random.default_rng(0).integers(0, 211, (1, 7))
    found = layer_costs(path, {n.name: n.formats for n in nodes}, {"tokens": tokens}, rounds=3)
    assert set(found) == {"embed", "up", "gate", "down", "gemm", "head"}
    for node in nodes:
        cost = found[node.name]
        assert set(cost.milliseconds) == set(node.formats) == set(cost.bytes)
        assert all(np.isfinite(value) and value > 0 for value in cost.milliseconds.values())
        assert cost.bytes["fp32"] == node.bytes
        assert cost.bytes["int8-dynamic"] < 0.35 * node.bytes


def test_convolutions_of_all_kinds(tmp_path: Path) -> None:
    node = helper.make_node
    path = graph(
        tmp_path / "m.onnx",
        [
            node("Conv", ["x", "c", "cb"], ["h"], name="conv", pads=[1, 1, 1, 1]),
            node("Conv", ["h", "d"], ["i"], name="depthwise", group=16),
            node("ConvTranspose", ["i", "t", "tb"], ["y"], name="up", strides=[2, 2]),
        ],
        {"x": (FLOAT, ["n", 3, 8, 8])},
        {"y": (FLOAT, ["n", 8, "h", "w"])},
        {
            "c": normal(16, 3, 3, 3),
            "cb": normal(16),
            "d": normal(16, 1, 3, 3),
            "t": normal(16, 8, 2, 2),
            "tb": normal(8),
        },
    )
    names = ("conv", "depthwise", "up")
    found = layer_costs(path, dict.fromkeys(names, ("int8-static",)), {"x": normal(1, 3, 8, 8)}, rounds=3)
    assert set(found) == set(names)
    assert all(set(cost.milliseconds) == {"fp32", "int8-static"} for cost in found.values())
    assert all(min(cost.milliseconds.values()) > 0 for cost in found.values())


def test_lookups_by_a_stored_index_and_by_a_single_number(tmp_path: Path) -> None:
    node = helper.make_node
    path = graph(
        tmp_path / "m.onnx",
        [
            node("Gather", ["places", "order"], ["p"], name="stored"),
            node("Gather", ["places", "zero"], ["q"], name="one"),
            node("Gather", ["table", "tokens"], ["r"], name="asked"),
            node("Add", ["r", "p"], ["s"]),
            node("Add", ["s", "q"], ["y"]),
        ],
        {"tokens": (INT, ["n", 4])},
        {"y": (FLOAT, ["n", 4, 64])},
        {"places": normal(4, 64), "table": normal(50, 64), "order": np.arange(4), "zero": np.array(0)},
    )
    names = ("stored", "one", "asked")
    found = layer_costs(
        path, dict.fromkeys(names, ("int8-dynamic",)), {"tokens": np.zeros((1, 4), np.int64)}, rounds=3
    )
    assert set(found) == set(names)


def test_values_inside_against_numpy(tmp_path: Path) -> None:
    path = language_model(tmp_path / "m.onnx")
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    tokens = np.array([[3, 1, 200]])
    found = values_inside(path, ["x", "up", "tokens", "gemm_b", "logits"], {"tokens": tokens})
    assert set(found) == {"x", "up", "tokens", "gemm_b", "logits"}
    np.testing.assert_array_equal(found["tokens"], tokens)
    np.testing.assert_array_equal(found["x"], weights["table"][tokens])
    exact = weights["table"][tokens].astype(np.float64) @ weights["up_w"].astype(np.float64)
    np.testing.assert_allclose(found["up"], exact, atol=1e-5)
    np.testing.assert_array_equal(found["gemm_b"], weights["gemm_b"])
    assert found["logits"].shape == (1, 3, 211)


def test_a_transposed_convolution_in_groups_stays_float(tmp_path: Path) -> None:
    path = graph(
        tmp_path / "m.onnx",
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="up", group=2)],
        {"x": (FLOAT, ["n", 4, 8, 8])},
        {"y": (FLOAT, ["n", 6, "h", "w"])},
        {"w": normal(4, 3, 2, 2)},
    )
    assert weighted_nodes(path) == ()
