"""What ONNX Runtime's own quantizers do here: static int8 with calibration data, and LSTMs."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.compression.calibration import calibration_reader, check_calibration
from airflow_model_deploy.engine.compression.normal_form import normalised, with_sorted_weights
from airflow_model_deploy.engine.compression.publishing import publish, workshop
from airflow_model_deploy.engine.compression.weight_nodes import is_plain_product, open_for_rewriting
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    ONE_FILE,
    SessionSettings,
    create_session,
    file_size,
    fits_one_file,
    load_onnx,
    open_onnx,
    ort_errors,
    save_onnx,
    weight_precisions,
    write_onnx,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

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
_PRODUCTS, _CONVOLUTIONS = ("MatMul", "Gemm"), ("Conv", "ConvTranspose")
# They make a new node under a new name.
_RENAMING = ("MatMulAddFusion", "MatMul_BatchNormalization_Fusion", "GemmSumFusion", "GemmTransposeFusion")


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
        source: a float model of at most 1.5 GB.
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
    source, target = Path(source), Path(target)
    if method != "minmax":
        raise InputError("method", found=method, wanted="minmax")
    _check_float(source)
    _check_fits(source, "static quantization")
    check_calibration(source, calibration, batch_size)
    check_excluded(exclude_nodes, {node.name for node in open_for_rewriting(source).graph.node})
    with workshop(target) as place:
        static_graph(
            source, place / target.name, place, calibration, without=exclude_nodes, batch_size=batch_size,
            per_channel=per_channel, activation_type=activation_type, weight_type=weight_type,
            reduce_range=reduce_range,
        )  # fmt: skip
        publish(source, place / target.name, target)


def static_graph(
    source: Path,
    made: Path,
    place: Path,
    calibration: Mapping[str, np.ndarray],
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    batch_size: int,
    per_channel: bool,
    activation_type: ActivationType = "u8",
    weight_type: WeightType = "s8",
    reduce_range: bool = False,
) -> None:
    """Write the statically quantized graph: of the weighted nodes `only` those named, none `without` it names."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as ort_quantize_static

    types = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
    prepared = _prepare(source, place)
    model = load_onnx(prepared)
    with _refusals("static quantization"):
        ort_quantize_static(
            str(prepared),
            str(made),
            calibration_reader(calibration, batch_size),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_static_operators(model)),
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_type=types[activation_type],
            weight_type=types[weight_type],
            nodes_to_exclude=[*without, *_unfit(model), *_outside(model, only)],
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=_options(model, only),
            calibration_providers=["CPUExecutionProvider"],
        )
    found = load_onnx(made, external_data=True)
    if not any(kind == "int8" for _, kind in weight_precisions(found)):
        raise InputError(
            f"quantization of {source}",
            found="no operator was quantized",
            wanted="at least one with int8 weights",
            remedy="Exclude fewer nodes, or choose the other kind of quantization.",
        )
    _leave_float(found, _outside(model, only))
    save_onnx(with_sorted_weights(normalised(found)), made)


def dynamic_lstm(source: Path, made: Path, names: Collection[str], *, per_channel: bool) -> None:
    """Give the LSTM nodes named int8 weights; the rest stays as it is."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic

    _check_fits(source, "dynamic quantization of LSTMs")
    with _refusals("dynamic quantization"):
        ort_quantize_dynamic(
            normalised(load_onnx(source, external_data=True)),
            str(made),
            op_types_to_quantize=["LSTM"],
            nodes_to_quantize=list(names),
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    save_onnx(with_sorted_weights(normalised(load_onnx(made, external_data=True))), made)


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
    """Fold what can be folded (batch norms above all) and infer shapes; the quantizer needs both.

    Fusions that give a MatMul or Gemm another name are left out: names are how nodes are chosen.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    _check_fits(source, "static quantization")
    clean, folded, prepared = (folder / f"{name}.onnx" for name in ("clean", "folded", "prepared"))
    write_onnx(normalised(open_for_rewriting(source)), clean, folder=source.parent, one_file=2 * ONE_FILE)
    settings = SessionSettings(graph_optimization_level="basic", disabled_optimizers=_RENAMING)
    create_session(clean, settings, optimized_file=folded)
    with _refusals("shape inference"):
        quant_pre_process(str(folded), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
    return prepared


def _check_fits(source: Path, what: str) -> None:
    """ONNX Runtime's own quantizers take a model as one message of protobuf, which ends at 2 GB."""
    size = file_size(source)
    if not fits_one_file(size):
        raise InputError(
            f"{what} of {source}", found=f"{size} bytes", wanted=f"at most {ONE_FILE}",
            remedy="Choose weight-only or dynamic quantization of other nodes, which takes models of any size.",
        )  # fmt: skip


def _static_operators(model: ModelProto) -> tuple[str, ...]:
    return _STATIC_OPS if _has_convolutions(model) else _PRODUCTS


def _has_convolutions(model: ModelProto) -> bool:
    return any(node.op_type in _CONVOLUTIONS for node in model.graph.node)


def _unfit(model: ModelProto) -> list[str]:
    """Products of two activations, such as attention scores; and Gemm with factors, whose bias comes out wrong."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _PRODUCTS
        and (not any(name in stored for name in node.input[:2]) or not is_plain_product(node))
    ]


def _outside(model: ModelProto, only: Collection[str] | None) -> list[str]:
    """What stays float where only some nodes are wanted: other weights, and whatever lies not wholly among these.

    An Add or a Relu is int8 where all that it takes comes from int8 nodes; elsewhere it would only lose.
    """
    if only is None:
        return []
    kinds = (*_CONVOLUTIONS, *_PRODUCTS)
    weighted = {node.name for node, _ in weight_precisions(model) if node.op_type in kinds}
    if _has_convolutions(model) and weighted <= set(only):
        return []
    stored, operators = {tensor.name for tensor in model.graph.initializer}, _static_operators(model)
    inside: set[str] = set()  # tensors
    outside = []
    for node in model.graph.node:
        inputs = {name for name in node.input if name} - stored
        follows = node.op_type in operators and node.name not in weighted and bool(inputs)
        if node.name in only or (follows and inputs <= inside):
            inside.update(node.output)
        else:
            outside.append(node.name)
    return outside


def _options(model: ModelProto, only: Collection[str] | None) -> dict[str, Any]:
    """Where nodes are chosen, the output of a product stays float: rounding it pays between convolutions only."""
    if only is None or _has_convolutions(model):
        return {}
    return {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]}


def _leave_float(model: ModelProto, outside: Collection[str]) -> None:
    """Let float nodes take a float tensor as it is, not as their int8 neighbours see it; in place."""
    float_nodes = set(outside)
    made_by = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.name not in float_nodes:
            continue
        for place, name in enumerate(node.input):
            back = made_by.get(name)
            there = made_by.get(back.input[0]) if back and back.op_type == "DequantizeLinear" else None
            if there is None or there.op_type != "QuantizeLinear":
                continue
            maker = made_by.get(there.input[0])
            if maker is None or maker.name in float_nodes:
                node.input[place] = there.input[0]


def _check_float(source: Path) -> None:
    found = {kind for _, kind in weight_precisions(open_onnx(source))}
    if "fp32" not in found:
        raise InputError(
            f"static quantization of {source}",
            found=f"weights in {', '.join(sorted(found)) or 'no operator'}",
            wanted="Conv, MatMul or Gemm with float32 weights",
            remedy="Give the float model, before quantization and graph optimization.",
        )


def check_excluded(exclude_nodes: Sequence[str], names: set[str]) -> None:
    """InputError where a name is no node's."""
    unknown = [name for name in exclude_nodes if name not in names]
    if unknown:
        some = ", ".join(sorted(names)[:8])
        raise InputError("exclude_nodes", found=unknown, wanted=f"names of nodes, such as {some}")
