"""What single layers lose: measured one at a time, adding up to what all lose together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from airflow_model_deploy.engine.compression import (
    LayerSensitivity,
    analyse,
    bit_losses,
    cosine_loss,
    export_onnx,
    fake_quantize,
    quantize_mixed,
    relative_error,
    treatments,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import create_session, run
from tests.engine.compression.graphs import language_model, product
from tests.engine.compression.nets import Stack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("transformer") / "model.onnx"
    export_onnx(Stack("torch", inner=64).eval(), {"x": torch.randn(2, 6, 16)}, path)
    return path


@pytest.fixture(scope="module")
def feed() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((48, 6, 16)).astype(np.float32)}


def answers(path: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run(create_session(path), feed, batch_size=16)


@pytest.fixture(scope="module")
def layers(transformer: Path, feed: dict[str, np.ndarray]) -> tuple[LayerSensitivity, ...]:
    offered = treatments(transformer, ("int8-dynamic", "int8-smooth", "int8-outlier", "int4-weight"))
    one = {"x": feed["x"][:1]}
    return analyse(transformer, offered, feed, loss=relative_error, calibration=feed, request=one)


@pytest.mark.parametrize("wanted", ["int8-dynamic", "int8-smooth", "int8-outlier", "int4-weight"])
def test_losses_of_single_layers_add_up(
    wanted: str,
    transformer: Path,
    feed: dict[str, np.ndarray],
    layers: tuple[LayerSensitivity, ...],
    tmp_path: Path,
) -> None:
    together = tmp_path / "all.onnx"
    quantize_mixed(
        transformer, together, {layer.layer: wanted for layer in layers}, calibration=feed, batch_size=16
    )
    whole = relative_error(answers(transformer, feed), answers(together, feed))
    assert whole > 0
    assert sum(layer.losses[wanted] for layer in layers) == pytest.approx(whole, rel=0.5)


def test_a_layer_is_measured_alone(
    transformer: Path, feed: dict[str, np.ndarray], layers: tuple[LayerSensitivity, ...], tmp_path: Path
) -> None:
    layer = layers[3]
    quantize_mixed(transformer, tmp_path / "one.onnx", {layer.layer: "int4-weight"})
    found = relative_error(answers(transformer, feed), answers(tmp_path / "one.onnx", feed))
    assert layer.losses["int4-weight"] == found
    assert layer.losses["fp32"] == 0
    assert set(layer.milliseconds) == set(layer.losses) == set(layer.bytes)
    assert LayerSensitivity.from_json(layer.to_json()) == layer
    without = {key: value for key, value in layer.to_json().items() if key != "bits"}
    assert LayerSensitivity.from_json({**without, "chosen": "fp32"}).bits == {}


def test_known_activations_change_nothing(
    transformer: Path, feed: dict[str, np.ndarray], layers: tuple[LayerSensitivity, ...]
) -> None:
    offered = {layers[1].layer: ("int8-smooth",)}
    again = analyse(
        transformer, offered, feed, loss=relative_error, calibration=feed, request={"x": feed["x"][:1]}
    )
    assert again[0].losses["int8-smooth"] == layers[1].losses["int8-smooth"]


def test_more_bits_lose_less(layers: tuple[LayerSensitivity, ...]) -> None:
    for layer in layers:
        assert list(layer.bits) == ["2", "3", "4", "6", "8"]
        found = [sum(one.bits[width] for one in layers) for width in layer.bits]
        assert found == sorted(found, reverse=True)
        assert found[2] / found[4] == pytest.approx(256, rel=0.5), "an error a step wide: 4^bits"


def test_bits_against_a_graph_with_rounded_weights(tmp_path: Path) -> None:
    """Every way in which a weight reaches its node; the table is looked up in and multiplied with."""
    source = language_model(tmp_path / "m.onnx")
    tokens = {"tokens": np.random.default_rng(0).integers(0, 211, (6, 5))}
    names = {
        "embed": ("table", 0),
        "up": ("up_w", 1),
        "down": ("down_w", 1),
        "gemm": ("gemm_w", 0),
        "head": ("table", 0),
    }
    found = bit_losses(source, list(names), tokens, relative_error, (3, 8), batch_size=4)
    original = answers(source, tokens)
    for name, (weight, axis) in names.items():
        for bits in (3, 8):
            model = onnx.load(source)
            stored = next(t for t in model.graph.initializer if t.name == weight)
            own = numpy_helper.from_array(
                fake_quantize(numpy_helper.to_array(stored), bits, axis=axis), "own"
            )
            model.graph.initializer.append(own)
            for node in model.graph.node:
                if node.name == {"head": "turn"}.get(name, name):
                    node.input[list(node.input).index(weight)] = "own"
            onnx.save(model, tmp_path / "rounded.onnx")
            wanted = relative_error(original, answers(tmp_path / "rounded.onnx", tokens))
            assert found[name][bits] == pytest.approx(wanted, rel=1e-3, abs=1e-12), (name, bits)


def test_bits_of_a_convolution(cnn_file: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    feed = {"x": digits[0][:16]}
    names = list(treatments(cnn_file))
    found = bit_losses(cnn_file, names, feed, relative_error, (2, 16))
    assert all(0 <= found[name][16] < 1e-6 < 1e-3 < found[name][2] for name in names)


@pytest.mark.parametrize(("nodes", "bits"), [(["away"], (4,)), (["it"], (1,)), (["it"], (17,))])
def test_layers_and_widths_that_cannot_be(nodes: list[str], bits: tuple[int, ...], tmp_path: Path) -> None:
    path = product(tmp_path / "m.onnx", np.ones((4, 4), np.float32))
    with pytest.raises(InputError):
        bit_losses(path, nodes, {"x": np.ones((2, 4), np.float32)}, relative_error, bits)


def test_four_bits_are_not_tried_where_no_plan_can_pay_for_them(
    transformer: Path, feed: dict[str, np.ndarray], layers: tuple[LayerSensitivity, ...]
) -> None:
    offered = {layer.layer: ("int8-dynamic", "int4-weight") for layer in layers[:2]}
    request = {"x": feed["x"][:1]}
    for most, tried in ((1e-9, False), (1.0, True)):
        found = analyse(
            transformer, offered, feed, loss=relative_error, calibration={}, request=request, most=most
        )
        assert {"int4-weight" in layer.losses for layer in found} == {tried}
        assert all("int8-dynamic" in layer.losses for layer in found)


def test_few_samples_are_not_spent_on_other_widths(transformer: Path, feed: dict[str, np.ndarray]) -> None:
    name = next(iter(treatments(transformer)))
    few = {"x": feed["x"][:2]}
    found = analyse(
        transformer, {name: ("int8-dynamic",)}, few, loss=relative_error, calibration={}, request=few
    )
    assert found[0].bits == {}


def test_a_format_that_breaks_the_answers_is_left_out(tmp_path: Path) -> None:
    path = product(tmp_path / "m.onnx", np.ones((4, 4), np.float32))
    x = {"x": np.ones((4, 4), np.float32)}
    losses = iter([math.nan, 0.5])
    found = analyse(
        path, {"it": ("int8-dynamic", "int8-weight")}, x, calibration={}, request=x,
        loss=lambda original, changed: next(losses) if changed["y"].tobytes() != b"" else 0,
    )  # fmt: skip
    assert found[0].losses == {"fp32": 0.0, "int8-weight": 0.5}


@pytest.mark.parametrize("wanted", ["int8-static", "int8-smooth"])
def test_samples_with_nan_are_refused_by_name(wanted: str, tmp_path: Path) -> None:
    path = product(tmp_path / "m.onnx", np.ones((4, 4), np.float32))
    x = {"x": np.full((4, 4), np.nan, np.float32)}
    with pytest.raises(InputError, match="calibration data of input x; found: NaN"):
        analyse(
            path,
            {"it": (wanted,)},
            x,
            loss=relative_error,
            calibration=x,
            request={"x": np.ones((1, 4), "f")},
        )


def test_formats_that_suit_the_kind_of_model(cnn_file: Path, transformer: Path, tmp_path: Path) -> None:
    assert set(treatments(cnn_file).values()) == {("int8-static",)}
    offered = treatments(transformer)
    assert set(offered.values()) == {("int8-dynamic", "int8-smooth", "int8-outlier", "int8-weight")}
    lookups = treatments(language_model(tmp_path / "m.onnx"))
    assert lookups["embed"] == ("int8-dynamic",), "both kinds of a lookup are the same"
    only = treatments(tmp_path / "m.onnx", ("fp32", "int4-weight"))
    assert only == dict.fromkeys(("up", "gate", "down", "gemm", "head"), ("int4-weight",))


def test_models_without_a_layer_to_treat(cnn_file: Path, tmp_path: Path) -> None:
    half = product(tmp_path / "half.onnx", np.ones((4, 4), np.float32))
    quantize_mixed(half, tmp_path / "q.onnx", {"it": "int8-weight"})
    for path, formats in ((tmp_path / "q.onnx", None), (cnn_file, ("fp32",)), (half, ())):
        with pytest.raises(InputError, match="formats for the layers of"):
            treatments(path, formats)


def test_losses_by_hand_in_float64() -> None:
    random = np.random.default_rng(0)
    a = {"u": random.standard_normal((7, 3, 2)).astype(np.float32), "v": random.standard_normal((7, 4))}
    b = {"v": a["v"] + 0.1 * random.standard_normal((7, 4)), "u": (a["u"] * 1.5)}
    parts = [
        np.square(a[n].astype(np.float64) - b[n]).mean() / a[n].astype(np.float64).var() for n in ("u", "v")
    ]
    assert relative_error(a, b) == pytest.approx(np.mean(parts), rel=1e-9)
    cosines = []
    for row in range(7):
        x, y = (np.concatenate([w["u"][row].ravel(), w["v"][row]]).astype(np.float64) for w in (a, b))
        cosines.append(x @ y / math.sqrt((x @ x) * (y @ y)))
    assert cosine_loss(a, b) == pytest.approx(1 - np.mean(cosines), rel=1e-9)
    turned = {n: np.asfortranarray(v) for n, v in b.items()}
    assert cosine_loss(a, turned) == pytest.approx(cosine_loss(a, b), rel=1e-12)


@pytest.mark.parametrize("loss", [relative_error, cosine_loss])
def test_losses_of_answers_out_of_the_ordinary(loss) -> None:
    ones, zeros = np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32)
    for same in (ones, zeros, ones[:1, :1], -ones):
        assert loss({"y": same}, {"y": same.copy()}) == pytest.approx(0, abs=1e-12)
    masked, kinds = np.where(np.eye(3, 4) > 0, -np.inf, 2 * np.eye(3, 4, 1)), np.arange(3)
    assert loss({"y": masked}, {"y": masked.copy()}) == pytest.approx(0, abs=1e-12)
    assert loss({"y": masked, "k": kinds}, {"y": masked, "k": kinds + 9}) == pytest.approx(0, abs=1e-12)
    assert loss({"k": kinds}, {"k": kinds[::-1]}) > 0
    assert math.isnan(loss({"y": ones}, {"y": ones * np.nan}))
    with pytest.raises(InputError, match="the model's outputs; found: y: str"):
        loss({"y": np.array(["a"])}, {"y": np.array(["a"])})


def test_losses_by_hand_of_constants() -> None:
    zeros, ones = np.zeros((2, 2)), np.ones((2, 2))
    assert relative_error({"y": 2 * ones}, {"y": ones}) == 0.25, "no variance: by the squared mean"
    assert relative_error({"y": zeros}, {"y": 0.5 * ones}) == 0.25
    assert cosine_loss({"y": ones}, {"y": 3 * ones}) == pytest.approx(0, abs=1e-12)
    assert cosine_loss({"y": ones}, {"y": -ones}) == pytest.approx(2)
    assert cosine_loss({"y": ones}, {"y": zeros}) == 1
