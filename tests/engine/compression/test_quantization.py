from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from airflow_model_deploy.engine.compression import quantize_dynamic, quantize_static
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    check_onnx,
    create_session,
    file_size,
    onnx_precision,
    read_signature,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path

Digits = tuple[np.ndarray, np.ndarray]

AGAIN = """
import sys, numpy as np
from airflow_model_deploy.engine.compression import quantize_dynamic, quantize_static
source, calibration, target = sys.argv[1:]
if calibration:
    quantize_static(source, target, {"x": np.load(calibration)})
else:
    quantize_dynamic(source, target)
"""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_static_int8_is_close_to_fp32_and_about_four_times_smaller(
    cnn_file: Path, digits: Digits, tmp_path: Path
) -> None:
    target = tmp_path / "int8.onnx"
    quantize_static(cnn_file, target, {"x": digits[0][:100]})
    check_onnx(target)
    assert onnx_precision(target) == "int8"
    assert file_size(cnn_file) / file_size(target) > 3.5
    assert read_signature(target) == read_signature(cnn_file)
    assert [p.name for p in tmp_path.iterdir()] == ["int8.onnx"]
    want = run(create_session(cnn_file), {"x": digits[0]})["output"]
    got = run(create_session(target), {"x": digits[0]}, batch_size=64)["output"]
    assert (want.argmax(1) == digits[1]).mean() > 0.9
    assert (got.argmax(1) == want.argmax(1)).mean() > 0.97
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()
    operators = [n.op_type for n in onnx.load(target).graph.node]
    assert operators.count("Conv") == 3
    assert "BatchNormalization" not in operators


def test_ranges_come_from_all_samples_whatever_the_batches(
    cnn_file: Path, digits: Digits, tmp_path: Path
) -> None:
    for name, size in (("a", 7), ("b", 100), ("c", 300)):
        quantize_static(cnn_file, tmp_path / f"{name}.onnx", {"x": digits[0][:100]}, batch_size=size)
    scales = []
    for name in "abc":
        weights = {t.name: t for t in onnx.load(tmp_path / f"{name}.onnx").graph.initializer}
        scales.append({n: onnx.numpy_helper.to_array(t) for n, t in weights.items() if n.endswith("_scale")})
    for other in scales[1:]:
        for name, value in scales[0].items():
            np.testing.assert_allclose(other[name], value, rtol=1e-5)


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_another_process_writes_the_same_bytes(
    mode: str, cnn_file: Path, mlp_file: Path, digits: Digits, tmp_path: Path
) -> None:
    source, calibration = (cnn_file, str(tmp_path / "x.npy")) if mode == "static" else (mlp_file, "")
    np.save(tmp_path / "x.npy", digits[0][:50])
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PYTHONHASHSEED": "5"}
    arguments = [sys.executable, "-c", AGAIN, str(source), calibration, str(tmp_path / "there.onnx")]
    subprocess.run(arguments, check=True, env=env)
    if mode == "static":
        quantize_static(source, tmp_path / "here.onnx", {"x": digits[0][:50]})
    else:
        quantize_dynamic(source, tmp_path / "here.onnx")
    assert digest(tmp_path / "here.onnx") == digest(tmp_path / "there.onnx")


def test_excluded_nodes_stay_float(cnn_file: Path, mlp_file: Path, digits: Digits, tmp_path: Path) -> None:
    first = next(n.name for n in onnx.load(cnn_file).graph.node if n.op_type == "Conv")
    quantize_static(cnn_file, tmp_path / "q.onnx", {"x": digits[0][:50]}, exclude_nodes=[first])
    assert onnx_precision(tmp_path / "q.onnx") == "mixed"
    last = [n.name for n in onnx.load(mlp_file).graph.node if n.op_type == "Gemm"][-1]
    quantize_dynamic(mlp_file, tmp_path / "d.onnx", exclude_nodes=[last])
    assert onnx_precision(tmp_path / "d.onnx") == "mixed"
    with pytest.raises(InputError, match=r"exclude_nodes.*nowhere"):
        quantize_static(cnn_file, tmp_path / "q.onnx", {"x": digits[0][:50]}, exclude_nodes=["nowhere"])


def test_dynamic_int8_of_an_mlp(mlp_file: Path, tmp_path: Path) -> None:
    quantize_dynamic(mlp_file, tmp_path / "d.onnx")
    check_onnx(tmp_path / "d.onnx")
    assert onnx_precision(tmp_path / "d.onnx") == "int8"
    assert file_size(mlp_file) / file_size(tmp_path / "d.onnx") > 3
    x = np.random.default_rng(0).standard_normal((100, 20)).astype(np.float32)
    want, got = (run(create_session(p), {"x": x})["output"] for p in (mlp_file, tmp_path / "d.onnx"))
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_static_int8_of_an_mlp_takes_weight_products_only(mlp_file: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((64, 20)).astype(np.float32)
    quantize_static(mlp_file, tmp_path / "s.onnx", {"x": x})
    assert onnx_precision(tmp_path / "s.onnx") == "int8"
    graph = onnx.load(tmp_path / "s.onnx").graph
    norm = next(n for n in graph.node if n.op_type == "LayerNormalization")
    scale = next(t for t in graph.initializer if t.name == norm.input[1])
    assert scale.data_type == onnx.TensorProto.FLOAT


def test_dynamic_leaves_convolutions_and_says_so(norm_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no MatMul, Gemm, Gather or LSTM.*Use static quantization"):
        quantize_dynamic(norm_file, tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        ({"y": np.zeros((4, 1, 8, 8), np.float32)}, "inputs \\['y'\\].*inputs \\['x'\\]"),
        ({"x": np.zeros((4, 1, 8, 8))}, "float64.*float32"),
        ({"x": np.zeros((4, 1, 9, 8), np.float32)}, "shape \\(4, 1, 9, 8\\)"),
        ({"x": np.zeros((0, 1, 8, 8), np.float32)}, "at least one sample"),
        ({"x": np.full((4, 1, 8, 8), np.nan, np.float32)}, "NaN or infinity"),
    ],
)
def test_calibration_data_that_does_not_fit(
    calibration: dict, reason: str, cnn_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        quantize_static(cnn_file, tmp_path / "q.onnx", calibration)
    assert not list(tmp_path.iterdir())


def test_nothing_left_to_quantize(cnn_file: Path, digits: Digits, tmp_path: Path) -> None:
    weighted = [n.name for n in onnx.load(cnn_file).graph.node if n.op_type in ("Conv", "Gemm")]
    with pytest.raises(InputError, match="no operator was quantized"):
        quantize_static(cnn_file, tmp_path / "q.onnx", {"x": digits[0][:8]}, exclude_nodes=weighted)
    quantize_static(cnn_file, tmp_path / "q.onnx", {"x": digits[0][:8]})
    with pytest.raises(InputError, match="weights in int8"):
        quantize_static(tmp_path / "q.onnx", tmp_path / "qq.onnx", {"x": digits[0][:8]})
