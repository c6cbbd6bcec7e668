"""Each format of a node, numerically: against float64 by hand and against ONNX Runtime's own quantizers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.compression import (
    export_onnx,
    quantize_dynamic,
    quantize_mixed,
    quantize_static,
    weight_zeros,
    weighted_nodes,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import check_onnx, create_session, file_size, onnx_precision, run
from tests.engine.compression.graphs import initializers, language_model, operators, product

if TYPE_CHECKING:
    from pathlib import Path

PRODUCTS = ("up", "gate", "down", "gemm", "head")
TOKENS = np.random.default_rng(1).integers(0, 211, (6, 9))
FORMATS = ("int8-dynamic", "int8-static", "int8-weight", "int4-weight")
WORST = {"int8-dynamic": 0.03, "int8-static": 0.03, "int8-weight": 0.03, "int4-weight": 0.15}

# Weights as training leaves them, and as nobody wants them: zeros, constants, one element, extremes.
weights = hnp.array_shapes(min_dims=2, max_dims=2, max_side=70).flatmap(
    lambda shape: st.one_of(
        st.integers(0, 2**32 - 1).map(
            lambda seed: np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        ),
        hnp.arrays(np.float32, shape, elements=st.floats(-(2.0**60), 2.0**60, width=32) | st.just(0.0)),
        st.sampled_from([0.0, 2.5, -1e-30]).map(lambda value: np.full(shape, value, np.float32)),
    )
)
relaxed = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("language") / "model.onnx", sparse=0.3)


def array(name: str, *shape: int) -> TensorProto:
    values = np.random.default_rng(len(name)).standard_normal(shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def answer(path: Path, inputs: dict) -> np.ndarray:
    return create_session(path).run(None, inputs)[0]


def error(path: Path, original: Path) -> float:
    want = answer(original, {"tokens": TOKENS})
    return float(np.abs(answer(path, {"tokens": TOKENS}) - want).max() / np.abs(want).max())


def quantized(source: Path, target: Path, formats: dict) -> Path:
    quantize_mixed(source, target, formats, calibration={"tokens": TOKENS}, batch_size=3)
    return target


def as_float(levels: np.ndarray, scales: np.ndarray, bits: int, depth: int) -> np.ndarray:
    """What a MatMulNBits weight stands for, [depth, columns], by its documentation."""
    if bits == 4:
        levels = np.stack([levels & 15, levels >> 4], axis=-1).reshape(*levels.shape[:2], -1)
    values = (levels.astype(np.float64) - 2 ** (bits - 1)) * scales.astype(np.float64)[..., None]
    return values.reshape(len(levels), -1)[:, :depth].T


def test_what_a_graph_offers(model: Path) -> None:
    found = {node.name: node for node in weighted_nodes(model)}
    assert list(found) == ["embed", "up", "gate", "down", "gemm", "head"]  # no product of two activations
    assert found["head"].weight == found["embed"].weight == "table"
    assert found["up"].shape == (96, 200)
    assert found["up"].bytes == 4 * found["up"].elements == 4 * 96 * 200
    assert set(FORMATS) <= set(found["gemm"].formats)
    assert "int8-weight" in found["embed"].formats
    assert "int4-weight" not in found["embed"].formats


@pytest.mark.parametrize("wanted", FORMATS)
def test_one_format_for_all_products(wanted: str, model: Path, tmp_path: Path) -> None:
    made = quantized(model, tmp_path / "q.onnx", dict.fromkeys(PRODUCTS, wanted))
    if wanted in ("int8-dynamic", "int8-static"):
        check_onnx(made)
    assert error(made, model) < WORST[wanted]
    assert [p.name for p in tmp_path.iterdir()] == ["q.onnx"]
    left = operators(made)
    assert left.count("MatMul") == (6 if wanted == "int8-static" else 2)  # two are products of activations
    assert "Transpose" in left
    assert left.count("DynamicQuantizeLinear") == (
        4 if wanted == "int8-dynamic" else 0
    )  # up and gate share one


def test_formats_can_be_mixed_at_will(model: Path, tmp_path: Path) -> None:
    formats = {
        "embed": "int8-weight", "up": "int8-static", "gate": "int8-dynamic", "down": "int4-weight",
        "gemm": "int8-weight", "head": "fp32",
    }  # fmt: skip
    made = quantized(model, tmp_path / "q.onnx", formats)
    assert error(made, model) < 0.1
    assert onnx_precision(made) == "mixed"
    quantized(model, tmp_path / "again.onnx", dict(reversed(formats.items())))
    assert made.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    optimized = tmp_path / "optimized.onnx"
    create_session(made, optimized_file=optimized)
    kernels = operators(optimized)
    assert kernels.count("MatMulIntegerToFloat") + kernels.count("DynamicQuantizeMatMul") == 2  # up, gate
    assert kernels.count("MatMulNBits") == 2


def test_a_float_neighbour_takes_the_float_tensor(model: Path, tmp_path: Path) -> None:
    """Only `up` is static; `gate` and the residual sum read the same tensor and shall not see it rounded."""
    made = quantized(model, tmp_path / "q.onnx", {"up": "int8-static"})
    nodes = {node.name: node for node in onnx.load(made).graph.node}
    assert nodes["gate"].input[0] == "x"
    assert nodes["up"].input[0] != "x"


@pytest.mark.parametrize(("wanted", "kernels"), [("int8-dynamic", 5), ("int8-weight", 5), ("int8-static", 5)])
def test_onnxruntime_has_one_kernel_for_each_node(
    wanted: str, kernels: int, model: Path, tmp_path: Path
) -> None:
    made = quantized(model, tmp_path / "q.onnx", dict.fromkeys(PRODUCTS, wanted))
    create_session(made, optimized_file=tmp_path / "o.onnx")
    one = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QLinearMatMul"}
    assert len([op for op in operators(tmp_path / "o.onnx") if op in one]) == kernels


@given(weights, st.booleans())
@relaxed
def test_int8_columns_by_hand(
    tmp_path_factory: pytest.TempPathFactory, weight: np.ndarray, gemm: bool
) -> None:
    folder = tmp_path_factory.mktemp("columns")
    source = product(folder / "m.onnx", weight, gemm=gemm)
    quantize_mixed(source, folder / "q.onnx", {"it": "int8-dynamic"})
    stored = initializers(folder / "q.onnx")
    levels, scales = stored["w_int8"].astype(np.float64), stored["w_scale"].astype(np.float64)
    exact = weight.astype(np.float64)
    largest = np.abs(exact).max(axis=0)
    assert (stored["w_zero_point"] == 0).all()
    usable = largest / 127 > np.finfo(np.float32).tiny
    np.testing.assert_allclose(scales[usable], largest[usable] / 127, rtol=1e-6)
    assert (np.abs(exact - levels * scales) <= scales / 2 * (1 + 1e-5)).all()
    assert (levels[exact == 0] == 0).all()
    x = np.random.default_rng(0).standard_normal((3, len(weight))).astype(np.float32)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 255
    zero = np.rint(-low / step)
    seen = np.clip(np.rint(x.astype(np.float64) / step) + zero, 0, 255)
    want = (seen - zero) @ levels * step * scales
    got = answer(folder / "q.onnx", {"x": x})
    slack = step * np.abs(levels * scales).sum(axis=0)  # one input may round the other way in float32
    assert (np.abs(got - want) <= 1e-5 * np.abs(want) + slack).all()


@given(weights, st.booleans(), st.sampled_from([(8, 128), (8, 16), (4, 32), (4, 64)]))
@relaxed
def test_blocks_by_hand(
    tmp_path_factory: pytest.TempPathFactory, weight: np.ndarray, gemm: bool, form: tuple[int, int]
) -> None:
    bits, block = form
    folder = tmp_path_factory.mktemp("blocks")
    source = product(folder / "m.onnx", weight, gemm=gemm)
    quantize_mixed(source, folder / "q.onnx", {"it": f"int{bits}-weight"}, block_size=block)
    stored = initializers(folder / "q.onnx")
    levels, scales = stored[f"w_int{bits}"], stored[f"w_int{bits}_scales"]
    depth, columns = weight.shape
    count = -(-depth // block)
    assert levels.shape == (columns, count, block * bits // 8)
    back = as_float(levels, scales, bits, depth)
    exact = weight.astype(np.float64)
    steps = np.repeat(np.abs(scales.astype(np.float64)), block, axis=1)[:, :depth].T
    lost = np.abs(exact - back)
    # The largest value has the lowest level exactly; one as large on the other side is a level short.
    clipped = np.abs(exact) > (2 ** (bits - 1) - 0.5) * steps
    assert (lost[~clipped] <= steps[~clipped] / 2 * (1 + 1e-5)).all()
    assert (lost <= steps * (1 + 1e-5)).all()
    assert (back[exact == 0] == 0).all()
    assert weight_zeros(folder / "q.onnx") == (back == 0).sum()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("gemm", [False, True])
def test_blocks_are_those_of_onnxruntimes_quantizer(bits: int, gemm: bool, tmp_path: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    weight = np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)
    block = 128 if bits == 8 else 32
    quantize_mixed(
        product(tmp_path / "m.onnx", weight, gemm=gemm), tmp_path / "q.onnx", {"it": f"int{bits}-weight"}
    )
    plain = onnx.load(product(tmp_path / "p.onnx", weight))
    theirs = MatMulNBitsQuantizer(plain, bits=bits, block_size=block, is_symmetric=True, accuracy_level=4)
    theirs.process()
    node = next(n for n in theirs.model.model.graph.node if n.op_type == "MatMulNBits")
    their = {t.name: numpy_helper.to_array(t) for t in theirs.model.model.graph.initializer}
    ours = initializers(tmp_path / "q.onnx")
    np.testing.assert_allclose(ours[f"w_int{bits}_scales"].ravel(), their[node.input[2]].ravel(), rtol=1e-6)
    mine = as_float(ours[f"w_int{bits}"], np.ones((200, len(ours[f"w_int{bits}"][0]))), bits, 300)
    other = as_float(their[node.input[1]], np.ones(ours[f"w_int{bits}_scales"].shape), bits, 300)
    assert (mine == other).mean() > 0.999  # theirs multiplies by the reciprocal
    attributes = {a.name: a.i for a in node.attribute}
    written = next(n for n in onnx.load(tmp_path / "q.onnx").graph.node if n.op_type == "MatMulNBits")
    assert {a.name: a.i for a in written.attribute} == attributes
    x = np.random.default_rng(1).standard_normal((7, 300)).astype(np.float32)
    want = x @ as_float(ours[f"w_int{bits}"], ours[f"w_int{bits}_scales"], bits, 300)
    assert np.abs(answer(tmp_path / "q.onnx", {"x": x}) - want).max() < 0.02 * np.abs(want).max()


def test_dynamic_is_as_good_and_as_small_as_onnxruntimes(model: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as theirs

    quantize_dynamic(model, tmp_path / "ours.onnx")
    theirs(
        onnx.load(model), tmp_path / "theirs.onnx", op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=True, weight_type=QuantType.QInt8,
    )  # fmt: skip
    tokens = {"tokens": np.random.default_rng(2).integers(0, 211, (32, 20))}
    want, ours, other = (answer(p, tokens) for p in (model, tmp_path / "ours.onnx", tmp_path / "theirs.onnx"))
    assert np.square(ours - want).mean() < 1.3 * np.square(other - want).mean()
    assert np.square(ours - want).mean() < 2e-4 * np.square(want).mean()
    assert file_size(tmp_path / "ours.onnx") < 1.05 * file_size(tmp_path / "theirs.onnx")


def test_embeddings_have_a_scale_for_each_row(model: Path, tmp_path: Path) -> None:
    made = quantized(model, tmp_path / "q.onnx", {"embed": "int8-weight"})
    stored, table = initializers(made), initializers(model)["table"].astype(np.float64)
    scales = np.abs(table).max(axis=1) / 127
    np.testing.assert_allclose(stored["table_row_scale"], scales, rtol=1e-6)
    np.testing.assert_array_equal(
        stored["table_int8_rows"], np.rint(table / stored["table_row_scale"][:, None])
    )
    np.testing.assert_array_equal(stored["table"], table)  # `head` still has it
    assert error(made, model) < 0.02
    quantized(model, tmp_path / "both.onnx", {"embed": "int8-dynamic", "head": "int8-dynamic"})
    both = initializers(tmp_path / "both.onnx")
    assert [name for name, array in both.items() if array.shape == (211, 96)] == ["table_int8_rows"]
    create_session(tmp_path / "both.onnx", optimized_file=tmp_path / "o.onnx")
    assert "DynamicQuantizeMatMul" in operators(tmp_path / "o.onnx")  # turned once, when it is loaded
    assert (
        weight_zeros(tmp_path / "both.onnx")
        == weight_zeros(model) + (both["table_int8_rows"] == 0).sum() * 2 - (table == 0).sum() * 2
    )


@pytest.mark.parametrize("opset", [11, 12, 13, 23])
def test_opsets(opset: int, tmp_path: Path) -> None:
    """Axes of Unsqueeze were an attribute before 13."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "i"], ["e"], name="embed"), helper.make_node("MatMul", ["e", "w"], ["y"])],
        "g", [helper.make_tensor_value_info("i", TensorProto.INT64, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 8])],
        [array("t", 20, 16), array("w", 16, 8)],
    )  # fmt: skip
    source = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), source)
    nodes = weighted_nodes(source)
    assert [node.name for node in nodes] == ["embed", "MatMul_y"]
    quantize_mixed(source, tmp_path / "q.onnx", {node.name: "int8-dynamic" for node in nodes})
    inputs = {"i": rng.integers(0, 20, (5, 3))}
    want = answer(source, inputs)
    assert np.abs(answer(tmp_path / "q.onnx", inputs) - want).max() < 0.03 * np.abs(want).max()


def test_pruned_weights_stay_zero_in_every_format(model: Path, tmp_path: Path) -> None:
    before = weight_zeros(model)
    assert before == sum(
        (initializers(model)[w] == 0).sum() * uses
        for w, uses in (("table", 2), ("up_w", 1), ("gate_w", 1), ("down_w", 1), ("gemm_w", 1))
    )
    for wanted in FORMATS:
        formats = {**dict.fromkeys(PRODUCTS, wanted), "embed": "int8-weight"}
        made = quantized(model, tmp_path / f"{wanted}.onnx", formats)
        assert before <= weight_zeros(made) < 1.6 * before, wanted
    quantize_static(model, tmp_path / "static.onnx", {"tokens": TOKENS})
    quantize_dynamic(model, tmp_path / "dynamic.onnx")
    assert weight_zeros(tmp_path / "static.onnx") >= before
    assert weight_zeros(tmp_path / "dynamic.onnx") >= before


def test_zeros_of_convolutions_survive_static(cnn_file: Path, digits: tuple, tmp_path: Path) -> None:
    pruned = onnx.load(cnn_file)
    for tensor in pruned.graph.initializer:
        if len(tensor.dims) == 4:
            values = numpy_helper.to_array(tensor).copy()
            values[np.abs(values) < np.abs(values).mean()] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(pruned, tmp_path / "pruned.onnx")
    convolutions = [n.name for n in weighted_nodes(tmp_path / "pruned.onnx") if n.op_type == "Conv"]
    before = weight_zeros(tmp_path / "pruned.onnx")
    assert before > 20_000
    quantize_mixed(
        tmp_path / "pruned.onnx", tmp_path / "q.onnx", dict.fromkeys(convolutions, "int8-static"),
        calibration={"x": digits[0][:64]},
    )  # fmt: skip
    assert weight_zeros(tmp_path / "q.onnx") >= before


def test_single_convolutions_and_their_neighbours(cnn_file: Path, digits: tuple, tmp_path: Path) -> None:
    nodes = weighted_nodes(cnn_file)
    first, second, third = (n.name for n in nodes if n.op_type == "Conv")
    head = next(n.name for n in nodes if n.op_type == "Gemm")
    formats = {second: "int8-static", third: "int8-static", head: "int8-dynamic"}
    quantize_mixed(cnn_file, tmp_path / "q.onnx", formats, calibration={"x": digits[0][:64]})
    create_session(tmp_path / "q.onnx", optimized_file=tmp_path / "o.onnx")
    kernels = operators(tmp_path / "o.onnx")
    assert kernels.count("QLinearConv") == 2
    assert "NhwcMaxPool" in kernels  # it stays between int8 convolutions
    assert "DynamicQuantizeMatMul" in kernels
    want, got = (run(create_session(p), {"x": digits[0]})["output"] for p in (cnn_file, tmp_path / "q.onnx"))
    assert (got.argmax(1) == want.argmax(1)).mean() > 0.97
    everything = {**dict.fromkeys((first, second, third, head), "int8-static")}
    quantize_mixed(cnn_file, tmp_path / "all.onnx", everything, calibration={"x": digits[0][:64]})
    quantize_static(cnn_file, tmp_path / "static.onnx", {"x": digits[0][:64]})
    assert (tmp_path / "all.onnx").read_bytes() == (tmp_path / "static.onnx").read_bytes()


def test_external_data_and_one_file_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    source = language_model(
        apart / "model.onnx",
        sparse=0.3,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=100,
    )
    assert (apart / "weights.bin").stat().st_size > 300_000
    formats = {"up": "int8-dynamic", "gate": "int8-weight", "down": "int4-weight", "gemm": "int8-static"}
    one, other = (
        quantized(s, tmp_path / n, formats) for s, n in ((model, "one.onnx"), (source, "other.onnx"))
    )
    assert one.read_bytes() == other.read_bytes()


AGAIN = """
import sys
from airflow_model_deploy.engine.compression import quantize_mixed
quantize_mixed(sys.argv[1], sys.argv[2], {"up": "int8-dynamic", "head": "int4-weight", "embed": "int8-weight"})
"""


def test_another_process_writes_the_same_file(model: Path, tmp_path: Path) -> None:
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PYTHONHASHSEED": "5"}
    subprocess.run(
        [sys.executable, "-c", AGAIN, str(model), str(tmp_path / "there.onnx")], check=True, env=env
    )
    formats = {"up": "int8-dynamic", "head": "int4-weight", "embed": "int8-weight"}
    made = quantized(model, tmp_path / "here.onnx", formats)
    assert (
        hashlib.sha256(made.read_bytes()).digest()
        == hashlib.sha256((tmp_path / "there.onnx").read_bytes()).digest()
    )


class Modern(torch.nn.Module):
    """One attention block, which opset 23 has an operator for."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = [f(x).view(*x.shape[:2], 4, -1).transpose(1, 2) for f in (self.q, self.k, self.v)]
        mixed = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        return self.o(mixed.transpose(1, 2).flatten(2))


def test_attention_of_opset_23_is_left_alone(tmp_path: Path) -> None:
    """ONNX Runtime's dynamic quantizer takes it for another operator of that name, and writes an invalid graph."""
    torch.manual_seed(0)
    source = tmp_path / "m.onnx"
    export_onnx(Modern().eval(), {"x": torch.randn(2, 6, 32)}, source, opset=23)
    assert "Attention" in operators(source)
    x = np.random.default_rng(0).standard_normal((8, 6, 32)).astype(np.float32)
    want = answer(source, {"x": x})
    quantize_dynamic(source, tmp_path / "dynamic.onnx")
    quantize_static(source, tmp_path / "static.onnx", {"x": x}, batch_size=8)
    names = [node.name for node in weighted_nodes(source)]
    quantize_mixed(source, tmp_path / "weight.onnx", dict.fromkeys(names, "int8-weight"))
    for made in ("dynamic", "static", "weight"):
        assert "Attention" in operators(tmp_path / f"{made}.onnx")
        assert onnx_precision(tmp_path / f"{made}.onnx") == "int8"
        assert np.abs(answer(tmp_path / f"{made}.onnx", {"x": x}) - want).max() < 0.05 * np.abs(want).max()


def typed(path: Path, dtype: int) -> Path:
    values = np.ones((4, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="it")], "typed",
        [helper.make_tensor_value_info("x", dtype, ["batch", 4])],
        [helper.make_tensor_value_info("y", dtype, ["batch", 3])],
        [helper.make_tensor("w", dtype, values.shape, values.ravel())],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8), path)
    return path


@pytest.mark.parametrize("dtype", ["DOUBLE", "FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("wanted", FORMATS)
def test_other_floats_are_refused(dtype: str, wanted: str, tmp_path: Path) -> None:
    source = typed(tmp_path / "m.onnx", TensorProto.DataType.Value(dtype))
    assert weighted_nodes(source) == ()
    with pytest.raises(
        InputError, match=f"node it; found: a MatMul with a weight of .4, 3. in {dtype.lower()}"
    ):
        quantize_mixed(source, tmp_path / "q.onnx", {"it": wanted})
    with pytest.raises(InputError, match="no MatMul, Gemm, Gather or LSTM with float32 weights"):
        quantize_dynamic(source, tmp_path / "q.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("wanted", ["int8-dynamic", "int8-weight", "int4-weight"])
def test_weights_that_are_no_numbers_are_named(value: float, wanted: str, tmp_path: Path) -> None:
    weight = np.ones((40, 8), np.float32)
    weight[17, 3] = value
    source = product(tmp_path / "m.onnx", weight)
    with pytest.raises(InputError, match="weight w; found: NaN or infinity"):
        quantize_mixed(source, tmp_path / "q.onnx", {"it": wanted})
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("formats", "reason"),
    [
        ({"nowhere": "int8-weight"}, "formats; found: node 'nowhere'; wanted: .*embed, up"),
        ({"scores": "int8-weight"}, "node scores; found: a MatMul without a stored weight"),
        ({"turn": "int8-weight"}, "node turn; found: a Transpose without a stored weight"),
        (
            {"embed": "int4-weight"},
            "int4-weight of node embed; found: a Gather; wanted: one of fp32, int8-dynamic",
        ),
        ({"up": "int3"}, "format of node up; found: int3; wanted: fp32 .*int4-weight"),
        ({"up": "int8-static"}, "calibration data; found: inputs .*wanted: inputs .'tokens'"),
    ],
)
def test_formats_that_do_not_fit(formats: dict, reason: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        quantize_mixed(model, tmp_path / "q.onnx", formats)
    assert not list(tmp_path.iterdir())


def test_int4_on_a_convolution_and_odd_block_sizes(cnn_file: Path, model: Path, tmp_path: Path) -> None:
    convolution = weighted_nodes(cnn_file)[0].name
    with pytest.raises(InputError, match="found: a Conv; wanted: one of fp32, int8-static for it"):
        quantize_mixed(cnn_file, tmp_path / "q.onnx", {convolution: "int4-weight"})
    for block in (0, 8, 48):
        with pytest.raises(InputError, match="block_size"):
            quantize_mixed(model, tmp_path / "q.onnx", {"up": "int4-weight"}, block_size=block)


def test_a_gemm_with_factors_stays_float(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="it", alpha=0.5, beta=2.0)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [array("w", 8, 4), array("b", 4)],
    )  # fmt: skip
    source = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8), source)
    assert weighted_nodes(source) == ()
    x = {"x": rng.standard_normal((9, 8)).astype(np.float32)}
    with pytest.raises(InputError, match="no operator was quantized"):
        quantize_static(source, tmp_path / "q.onnx", x, batch_size=9)
    with pytest.raises(InputError, match="no MatMul, Gemm"):
        quantize_dynamic(source, tmp_path / "q.onnx")


def test_an_lstm_is_still_quantized_dynamically(tmp_path: Path) -> None:
    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = torch.nn.LSTM(8, 16, batch_first=True), torch.nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    source = tmp_path / "m.onnx"
    export_onnx(Recurrent(), {"x": torch.randn(2, 5, 8)}, source)
    quantize_dynamic(source, tmp_path / "q.onnx")
    assert {"DynamicQuantizeLSTM", "MatMulInteger"} <= set(operators(tmp_path / "q.onnx"))
    x = np.random.default_rng(0).standard_normal((4, 5, 8)).astype(np.float32)
    want = answer(source, {"x": x})
    assert np.abs(answer(tmp_path / "q.onnx", {"x": x}) - want).max() < 0.05 * np.abs(want).max()
