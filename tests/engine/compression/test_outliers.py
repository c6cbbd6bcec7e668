"""Large activation channels: the rewriting changes nothing in float, and saves the other channels in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.compression import quantize_mixed
from airflow_model_deploy.engine.compression.outliers import (
    largest_activations,
    outlier_channels,
    smoothing_scales,
    tame_outliers,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import create_session, run
from tests.engine.compression.graphs import initializers, operators

if TYPE_CHECKING:
    from pathlib import Path

REMEDIES = ("int8-smooth", "int8-outlier")
WIDTH, LARGE = 64, (5, 41)


def products(path: Path, width: int = WIDTH, seed: int = 0) -> Path:
    """One input, four readers: MatMul, Gemm with transB and bias, a weight through a Transpose, and both."""
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(width)).astype(np.float32), name)

    weights = [
        weight("w", width, 24),
        weight("g", 24, width),
        weight("b", 24),
        weight("t", 24, width),
        weight("u", width, 24),
    ]
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["plain"], name="plain"),
        node("Gemm", ["x", "g", "b"], ["gemm"], transB=1, name="gemm"),
        node("Transpose", ["t"], ["t_turned"], perm=[1, 0], name="turn"),
        node("MatMul", ["x", "t_turned"], ["turned"], name="turned"),
        node("Transpose", ["u"], ["u_turned"], perm=[1, 0], name="turn_again"),
        node("Gemm", ["x", "u_turned", "b"], ["twice"], transB=1, name="twice"),
    ]
    outputs = ("plain", "gemm", "turned", "twice")
    graph = helper.make_graph(
        nodes, "products", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 24]) for name in outputs], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8), path)
    return path


def with_outliers(width: int = WIDTH, rows: int = 40) -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)
    x[:, [c for c in LARGE if c < width]] *= 60
    return {"x": x}


def answers(path: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run(create_session(path), feed)


def tamed(source: Path, made: Path, feed: dict[str, np.ndarray], wanted: str) -> dict[str, str]:
    names = ("plain", "gemm", "turned", "twice")
    return tame_outliers(source, made, dict.fromkeys(names, wanted), feed, 8)


def truth(path: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The four products in float64."""
    w = {name: value.astype(np.float64) for name, value in initializers(path).items()}
    x = feed["x"].astype(np.float64)
    return {
        "plain": x @ w["w"],
        "gemm": x @ w["g"].T + w["b"],
        "turned": x @ w["t"].T,
        "twice": x @ w["u"] + w["b"],
    }


@pytest.mark.parametrize("wanted", REMEDIES)
def test_the_float_graph_answers_as_before(wanted: str, tmp_path: Path) -> None:
    source, feed = products(tmp_path / "m.onnx"), with_outliers()
    formats = tamed(source, tmp_path / "t.onnx", feed, wanted)
    assert set(formats.values()) == {"int8-dynamic"}
    found = answers(tmp_path / "t.onnx", feed)
    for name, exact in truth(source, feed).items():
        np.testing.assert_allclose(found[name], exact, rtol=0, atol=2e-6 * np.abs(exact).max())


def test_smoothing_moves_powers_of_two_and_nothing_else(tmp_path: Path) -> None:
    source, feed = products(tmp_path / "m.onnx"), with_outliers()
    tamed(source, tmp_path / "t.onnx", feed, "int8-smooth")
    before, after = initializers(source), initializers(tmp_path / "t.onnx")
    inverse = after["x_smoothing"]
    assert operators(tmp_path / "t.onnx").count("Mul") == 1, "readers of one input share its scaled form"
    assert set(np.log2(inverse) % 1) == {0}
    np.testing.assert_array_equal(after["w_smooth"] * inverse[:, None], before["w"])
    np.testing.assert_array_equal(after["g_smooth"] * inverse, before["g"])
    assert inverse[list(LARGE)].max() < np.delete(inverse, LARGE).min()


@pytest.mark.parametrize("wanted", REMEDIES)
def test_a_layer_with_outliers_loses_far_less(wanted: str, tmp_path: Path) -> None:
    source, feed = products(tmp_path / "m.onnx"), with_outliers()
    exact = truth(source, feed)

    def error(format_: str) -> float:
        path = tmp_path / f"{format_}.onnx"
        quantize_mixed(source, path, dict.fromkeys(exact, format_), calibration=feed, batch_size=8)
        found = answers(path, feed)
        return max(float(np.square(found[name] - exact[name]).mean()) for name in exact)

    assert error(wanted) < error("int8-dynamic") / 10


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("wanted", REMEDIES)
def test_layers_of_few_channels(wanted: str, width: int, tmp_path: Path) -> None:
    source, feed = products(tmp_path / "m.onnx", width), with_outliers(width)
    names = ("plain", "gemm", "turned", "twice")
    for made, format_ in (("q", wanted), ("d", "int8-dynamic")):
        quantize_mixed(
            source, tmp_path / f"{made}.onnx", dict.fromkeys(names, format_), calibration=feed, batch_size=8
        )
    found, plain = answers(tmp_path / "q.onnx", feed), answers(tmp_path / "d.onnx", feed)
    for name, exact in truth(source, feed).items():
        np.testing.assert_allclose(found[name], exact, atol=0.05 * np.abs(exact).max())
        if wanted == "int8-outlier" and width < 3:
            np.testing.assert_array_equal(found[name], plain[name])


@pytest.mark.parametrize("wanted", REMEDIES)
def test_same_bytes_for_the_same_input(wanted: str, tmp_path: Path) -> None:
    source, feed = products(tmp_path / "m.onnx"), with_outliers()
    known = largest_activations(source, ["x"], feed, 8)
    turned = {"x": np.asfortranarray(feed["x"])}
    made = []
    for number, (data, activations) in enumerate([(feed, None), (turned, None), (feed, known), ({}, known)]):
        path = tmp_path / f"{number}.onnx"
        quantize_mixed(
            source,
            path,
            {"plain": wanted, "gemm": wanted},
            calibration=data,
            batch_size=8,
            activations=activations,
        )
        made.append(path.read_bytes())
    assert len(set(made)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.onnx", "1.onnx", "2.onnx", "3.onnx", "m.onnx"]


def test_activations_inside_and_across_batches(tmp_path: Path) -> None:
    source, feed = products(tmp_path / "m.onnx"), with_outliers(rows=11)
    found = largest_activations(source, ["x", "plain", "x"], feed, 4)
    np.testing.assert_array_equal(found["x"], np.abs(feed["x"]).max(axis=0))
    exact = np.abs(truth(source, feed)["plain"]).max(axis=0)
    np.testing.assert_allclose(found["plain"], exact, rtol=1e-5)


@pytest.mark.parametrize("wanted", REMEDIES)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "calibration data; found: inputs []; wanted: inputs ['x']"),
        ({"y": np.zeros((2, WIDTH), np.float32)}, "calibration data; found: inputs ['y']"),
        (
            {"x": np.full((2, WIDTH), np.nan, np.float32)},
            "calibration data of input x; found: NaN or infinity",
        ),
        ({"x": np.full((2, WIDTH), 1e38, np.float32)}, "activations plain; found: NaN or infinity in"),
    ],
)
def test_data_that_cannot_be_used(
    wanted: str, data: dict[str, np.ndarray], reason: str, tmp_path: Path
) -> None:
    source = products(tmp_path / "m.onnx")
    model = onnx.load(source)
    model.graph.initializer.append(numpy_helper.from_array(np.full((24, 8), 10, np.float32), "next_w"))
    model.graph.node.append(helper.make_node("MatMul", ["plain", "next_w"], ["next"], name="next"))
    model.graph.output.append(helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", 8]))
    weight = next(t for t in model.graph.initializer if t.name == "w")
    weight.CopyFrom(numpy_helper.from_array(np.full((WIDTH, 24), 9, np.float32), "w"))
    onnx.save(model, source)
    with pytest.raises(InputError) as caught:
        quantize_mixed(source, tmp_path / "q.onnx", {"next": wanted}, calibration=data, batch_size=2)
    assert reason in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_what_only_a_subgraph_reads_stays(tmp_path: Path) -> None:
    path, feed = products(tmp_path / "m.onnx"), with_outliers()
    model = onnx.load(path)
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Add", ["plain", weight], ["branch"])], name, [],
            [helper.make_tensor_value_info("branch", TensorProto.FLOAT, ["batch", 24])],
        )
        for name, weight in (("then", "inner"), ("else", "b"))
    }  # fmt: skip
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones(24, np.float32), "inner"),
            numpy_helper.from_array(np.array(True), "yes"),
        ]
    )
    model.graph.node.append(helper.make_node("If", ["yes"], ["chosen"], name="if", **branches))
    model.graph.output.append(helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["batch", 24]))
    onnx.save(model, path)
    quantize_mixed(path, tmp_path / "q.onnx", {"plain": "int8-outlier"}, calibration=feed, batch_size=8)
    found = answers(tmp_path / "q.onnx", feed)
    np.testing.assert_array_equal(found["chosen"], found["plain"] + 1)


def test_scales_by_hand() -> None:
    activations = np.array([1.0, 16.0, 1.0, 0.0, 2.0], np.float32)
    weights = np.array([1.0, 1.0, 0.0, 1.0, 16.0], np.float32)
    # of channels 0, 1 and 4: 1^.75/1, 16^.75 = 8, 2^.75 / 16^.25 = 2^-.25; their median is 1
    np.testing.assert_array_equal(smoothing_scales(activations, weights), np.float32([1, 8, 1, 1, 1]))
    np.testing.assert_array_equal(
        smoothing_scales(activations, weights, alpha=1.0), np.float32([0.5, 8, 1, 1, 1])
    )
    np.testing.assert_array_equal(smoothing_scales(np.zeros(3), np.ones(3)), np.ones(3))
    np.testing.assert_array_equal(smoothing_scales(np.full(4, 7.0), np.full(4, 0.1)), np.ones(4))
    np.testing.assert_array_equal(smoothing_scales(np.float32([9.0]), np.float32([0.5])), [1])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=20),
    st.integers(0, 2**31),
    st.floats(0, 1),
)
def test_scales_against_the_formula_in_float64(values: list[float], seed: int, alpha: float) -> None:
    a = np.repeat(np.array(values, np.float32), 2)[::2]  # no contiguous memory
    w = np.random.default_rng(seed).exponential(1, len(a)).astype(np.float32)
    found = smoothing_scales(a, w, alpha)
    assert found.dtype == np.float32
    assert set(np.log2(found) % 1) == {0}
    usable = (a > 0) & (w > 0)
    assert (found[~usable] == 1).all()
    if usable.any():
        exact = alpha * np.log2(a[usable].astype(np.float64)) - (1 - alpha) * np.log2(
            w[usable].astype(np.float64)
        )
        wanted = np.clip(exact - np.median(exact), -16, 16)
        assert np.abs(np.log2(found[usable]) - wanted).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("activations", "places"),
    [
        ([3.0], []),
        ([3.0, 9.0], []),
        ([3.0, 1.0, 9.0], [2]),
        ([0.0, 0.0, 0.0, 0.0, 0.0], [0, 1]),
        ([1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0, 1.0, 5.0], [1, 3, 4, 6]),
    ],
)
def test_outlier_channels_by_hand(activations: list[float], places: list[int]) -> None:
    found = outlier_channels(np.array(activations, np.float32))
    np.testing.assert_array_equal(found, places)
    assert found.dtype == np.int64


def test_one_channel_in_256_is_an_outlier() -> None:
    activations = np.arange(2048, dtype=np.float32)[::-1]
    np.testing.assert_array_equal(outlier_channels(activations), np.arange(8))
