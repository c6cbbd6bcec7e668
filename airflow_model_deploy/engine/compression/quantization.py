"""Turns a float ONNX file into an int8 one, with ONNX Runtime's quantizers."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from airflow_model_deploy.engine.compression.calibration import calibration_reader, check_calibration
from airflow_model_deploy.engine.compression.normal_form import normalised, with_sorted_weights
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    create_session,
    load_onnx,
    ort_errors,
    read_signature,
    save_onnx,
    weight_precisions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

ActivationType = Literal["u8", "s8"]
WeightType = Literal["s8", "u8"]
Method = Literal["minmax"]

# Operators between which ONNX Runtime keeps int8 on the CPU. Softmax, norms and products of activations are
# left out: quantizing them ruins transformers and speeds up nothing.
_STATIC_OPS = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "GlobalAveragePool",
    "MatMul", "MaxPool", "Pad", "Relu", "Reshape", "Resize", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_DYNAMIC_OPS = ("MatMul", "Gemm", "Gather", "LSTM")


def quantize_static(
    source: str | Path,
    target: str | Path,
    calibration: Mapping[str, np.ndarray],
    *,
    per_channel: bool = True,
    batch_size: int = 32,
    exclude_nodes: Sequence[str] = (),
    activation_type: ActivationType = "u8",
    weight_type: WeightType = "s8",
    reduce_range: bool = False,
    method: Method = "minmax",
) -> None:
    """Weights and activations int8, as QuantizeLinear/DequantizeLinear pairs; best for convolutions.

    Graphs with convolutions are quantized wherever ONNX Runtime fuses the pairs into int8 kernels; others at
    their MatMul and Gemm with stored weights only. Scales are the extremes of the activations over the
    calibration samples, batch by batch, so memory doesn't grow with their number.

    Args:
        source: a float model with one file.
        target: the file to write; replaced only once the new one loads.
        calibration: name -> array as the model takes it, dimension 0 = samples.
        per_channel: one scale an output channel instead of one a weight.
        batch_size: samples a calibration run. The last batch is filled up with repeated samples.
        exclude_nodes: names of nodes that stay float.
        activation_type: "u8", or "s8" (about twice as slow on x86).
        weight_type: "s8" or "u8".
        reduce_range: 7-bit weights; for x86 CPUs without VNNI, whose int8 kernels saturate.
        method: how ranges are found.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as ort_quantize_static

    if method != "minmax":
        raise InputError("method", found=method, wanted="minmax")
    _check_float(Path(source))
    check_calibration(Path(source), calibration, batch_size)
    types = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
    with _workshop(Path(target)) as folder:
        prepared = _prepare(Path(source), folder)
        model = load_onnx(prepared)
        operators = _static_operators(model)
        names = {node.name for node in model.graph.node} | {n.name for n in load_onnx(source).graph.node}
        _check_excluded(exclude_nodes, names)
        with _refusals("static quantization"):
            ort_quantize_static(
                str(prepared),
                str(folder / "out.onnx"),
                calibration_reader(calibration, batch_size),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(operators),
                per_channel=per_channel,
                reduce_range=reduce_range,
                activation_type=types[activation_type],
                weight_type=types[weight_type],
                nodes_to_exclude=[*exclude_nodes, *_without_weights(model)],
                calibrate_method=CalibrationMethod.MinMax,
                calibration_providers=["CPUExecutionProvider"],
            )
        _finish(Path(source), folder / "out.onnx", Path(target))


def quantize_dynamic(
    source: str | Path, target: str | Path, *, per_channel: bool = True, exclude_nodes: Sequence[str] = ()
) -> None:
    """Weights int8, activations quantized while running; best for MatMul, Gemm, Gather and LSTM, needs no data.

    Convolutions stay float: dynamic int8 convolutions are slower than float ones.
    """
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic

    model = load_onnx(source)
    weighted = [(node, kind) for node, kind in weight_precisions(model) if node.op_type in _DYNAMIC_OPS]
    if not any(kind == "fp32" for _, kind in weighted):
        present = sorted({node.op_type for node, _ in weight_precisions(model)})
        raise InputError(
            f"dynamic quantization of {source}",
            found=f"no MatMul, Gemm, Gather or LSTM with float32 weights ({', '.join(present) or 'no weights'})",
            wanted="at least one",
            remedy="Use static quantization with calibration data; it quantizes convolutions.",
        )
    _check_excluded(exclude_nodes, {node.name for node in model.graph.node})
    with _workshop(Path(target)) as folder:
        with _refusals("dynamic quantization"):
            ort_quantize_dynamic(
                normalised(model),
                str(folder / "out.onnx"),
                op_types_to_quantize=list(_DYNAMIC_OPS),
                per_channel=per_channel,
                weight_type=QuantType.QInt8,
                # A Gemm becomes a MatMul and an Add first, under another name.
                nodes_to_exclude=[*exclude_nodes, *(f"{name}_MatMul" for name in exclude_nodes)],
                extra_options={"DefaultTensorType": TensorProto.FLOAT},
            )
        _finish(Path(source), folder / "out.onnx", Path(target))


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """A fresh folder beside the target: the quantizers refuse to overwrite what an earlier try left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".quantize-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Quiet, and with the quantizers' assorted errors as one."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _quantizer_errors() as error:
        raise InputError(
            what,
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            wanted="a float graph that ONNX Runtime's quantizer handles",
            remedy="Export with opset 20 or 21, or exclude the node named here.",
        ) from error
    finally:
        logging.disable(disabled)


def _quantizer_errors() -> tuple[type[Exception], ...]:
    return (*ort_errors(), TypeError, LookupError, AttributeError, AssertionError)


def _prepare(source: Path, folder: Path) -> Path:
    """Fold what can be folded (batch norms above all) and infer shapes; the quantizer needs both."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    clean, prepared = folder / "clean.onnx", folder / "prepared.onnx"
    save_onnx(normalised(load_onnx(source, external_data=True)), clean)
    with _refusals("shape inference"):
        quant_pre_process(str(clean), str(prepared), skip_symbolic_shape=True)
    return prepared


def _static_operators(model: ModelProto) -> tuple[str, ...]:
    present = {node.op_type for node in model.graph.node}
    return _STATIC_OPS if present & {"Conv", "ConvTranspose"} else ("MatMul", "Gemm")


def _without_weights(model: ModelProto) -> list[str]:
    """MatMul and Gemm between two activations, such as attention scores."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and not any(name in stored for name in node.input[:2])
    ]


def _check_float(source: Path) -> None:
    found = {kind for _, kind in weight_precisions(load_onnx(source))}
    if "fp32" not in found:
        raise InputError(
            f"static quantization of {source}",
            found=f"weights in {', '.join(sorted(found)) or 'no operator'}",
            wanted="Conv, MatMul or Gemm with float32 weights",
            remedy="Give the float model, before quantization and graph optimization.",
        )


def _finish(source: Path, made: Path, target: Path) -> None:
    """Normalise, verify and move into place."""
    model = load_onnx(made, external_data=True)
    if not any(kind == "int8" for _, kind in weight_precisions(model)):
        raise InputError(
            f"quantization of {source}",
            found="no operator was quantized",
            wanted="at least one with int8 weights",
            remedy="Exclude fewer nodes, or choose the other kind of quantization.",
        )
    save_onnx(with_sorted_weights(normalised(model)), made)
    create_session(made)
    before, after = read_signature(source), read_signature(made)
    if before != after:
        raise InputError(
            f"quantization of {source}", found=f"signature {after}", wanted=f"signature {before}"
        )
    made.replace(target)


def _check_excluded(exclude_nodes: Sequence[str], names: set[str]) -> None:
    unknown = [name for name in exclude_nodes if name not in names]
    if unknown:
        some = ", ".join(sorted(names)[:8])
        raise InputError("exclude_nodes", found=unknown, wanted=f"names of nodes, such as {some}")
