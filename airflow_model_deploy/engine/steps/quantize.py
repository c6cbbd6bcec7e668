"""Quantize in ONNX: integers for all weights and activations, for weights only, or node by node."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description
from airflow_model_deploy.engine.compression import (
    Format,
    chosen_nodes,
    formats_by_pattern,
    graph_nodes,
    quantize_dynamic,
    quantize_mixed,
    quantize_static,
    weight_zeros,
    weighted_nodes,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    ONE_FILE,
    DataSource,
    file_size,
    fits_one_file,
    load_data,
    onnx_precision,
    read_signature,
)
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.export import MODEL, copy_model, onnx_of
from airflow_model_deploy.engine.steps.fields import Metric
from airflow_model_deploy.engine.steps.layout import PLAN
from airflow_model_deploy.engine.steps.original import original_of
from airflow_model_deploy.engine.steps.plan_file import PLAN_BATCH, plan_formats, plan_samples
from airflow_model_deploy.engine.steps.quality import onnx_quality
from airflow_model_deploy.engine.steps.samples import samples_for, unmeasured
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.speed import cpu_latency_ms
from airflow_model_deploy.engine.steps.torch_artifacts import data_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

logger = logging.getLogger(__name__)

Mode = Literal["auto", "none", "static", "dynamic", "weight-only", "mixed", "plan"]
_BATCH = 32
_CALIBRATED = ("int8-static", "int8-smooth", "int8-outlier")


@spec
class QuantizeSpec:
    """What becomes integers, and how.

    `static`: inputs, outputs and weights, with ranges from calibration data (best for convolutions). `dynamic`:
    weights of matrix products, ranges of activations at run time (best for transformers). `weight-only`: weights
    of matrix products, in blocks with a scale each. `mixed`: a format for each node. `plan`: the formats of the
    plan.json that lies beside the model. `auto`: its plan where it has one; else static with data for a graph with
    convolutions, dynamic for others with matrix products. `none`: only export to ONNX.
    """

    mode: Mode = "static"
    bits: Annotated[Literal[4, 8], Field(description="width of the weights in mode 'weight-only'")] = 8
    formats: Annotated[
        dict[str, Format],
        Field(description="for mode 'mixed': node name or shell pattern -> format; other nodes stay fp32"),
    ] = field(default_factory=dict)
    per_channel: Annotated[bool, Field(description="a scale of its own for each output channel")] = True
    calibration_samples: Annotated[int, Field(ge=1, description="taken evenly from the training split")] = 256
    include_nodes: Annotated[
        tuple[str, ...], Field(description="names or shell patterns of the nodes to quantize; none: all")
    ] = ()
    include_ops: Annotated[
        tuple[str, ...],
        Field(description="operators to quantize, such as MatMul; none: all that have weights"),
    ] = ()
    exclude_nodes: Annotated[
        tuple[str, ...], Field(description="names or shell patterns of nodes left in fp32")
    ] = ()
    data: Annotated[
        DataSource | None,
        Field(
            description="split 'train' calibrates 'static', 'test' measures quality; None: neither is done"
        ),
    ] = None
    metric: Metric = "accuracy"


def quantize(spec: QuantizeSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Export where needed, quantize, measure quality."""
    source = inputs["model"]
    reference, path = onnx_of(source, context)
    if spec.mode == "auto":
        spec = replace(spec, mode=_suitable(spec, source, path))
    if spec.mode == "plan":  # calibrated as it was verified
        spec = replace(spec, calibration_samples=plan_samples(source.folder) or spec.calibration_samples)
    _check_fields(spec)
    planned = plan_formats(source.folder) if spec.mode == "plan" else {}
    folder = context.folder("model")
    target = folder / MODEL
    formats = _formats(spec, path, planned)
    _check_size(spec, path, formats)
    _write(spec, path, folder, formats, context)
    signature = read_signature(path)
    samples = samples_for(path, spec.data, context.resolve, random=signature.fixed_batch or 1)
    quality = onnx_quality(
        target, spec.data, spec.metric, context.resolve, original=original_of(source, context)
    )
    metrics: dict[str, Any] = {
        **quality,
        "precision": onnx_precision(target),
        "exported_bytes": file_size(path),
        "model_bytes": file_size(target),
        "zeros_before": weight_zeros(path),
        "zeros_after": weight_zeros(target),
    }
    logger.info("%s: %d bytes, exported were %d", spec.mode, file_size(target), file_size(path))
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name,
            kind="model",
            format="onnx",
            signature=read_signature(target),
            parents={"exported": reference.digest},
            metrics=metrics,
        ),
        main="model",
        measurements={"latency_ms": cpu_latency_ms(target, samples.feed)},
        details={
            "mode": spec.mode,
            "inputs": samples.source,
            **({"formats": dict(sorted(Counter(formats.values()).items()))} if formats else {}),
            **unmeasured(quality, spec.data),
        },
    )


def _suitable(spec: QuantizeSpec, source: Input, path: Path) -> Mode:
    if (source.folder / PLAN).is_file():
        return "plan"
    kinds = {node.op_type for node in weighted_nodes(path)}
    if kinds & {"Conv", "ConvTranspose"}:
        return "static" if spec.data else "none"
    return "dynamic" if kinds else "none"


def _check_fields(spec: QuantizeSpec) -> None:
    if spec.mode == "mixed" and not spec.formats:
        raise InputError(
            "mode 'mixed' needs formats",
            found="none",
            wanted='{node name or pattern: format}, such as {"*": "int8-dynamic"}',
            remedy="Give `formats`, or choose another mode.",
        )
    if spec.mode != "mixed" and spec.formats:
        raise InputError("formats", found=f"formats in mode {spec.mode!r}", wanted="mode 'mixed'")
    partial = spec.include_nodes or spec.include_ops or spec.exclude_nodes
    if partial and spec.mode in ("none", "mixed", "plan"):
        raise InputError(
            "include_nodes, include_ops, exclude_nodes",
            found=f"some in mode {spec.mode!r}",
            wanted="none: this mode's own formats say which nodes are quantized",
            remedy="Leave them out, or give a node the format fp32.",
        )


def _formats(spec: QuantizeSpec, path: Path, planned: Mapping[str, Format]) -> dict[str, Format]:
    """Each node's format, where the mode or the choice of nodes asks for one a node; else {}."""
    if spec.mode == "plan":
        return dict(planned)
    nodes = weighted_nodes(path) if spec.mode in ("static", "weight-only", "mixed") else ()
    if spec.mode == "mixed":
        return formats_by_pattern(nodes, spec.formats)
    if spec.mode == "static" and (spec.include_nodes or spec.include_ops):
        able = {node.name: node.op_type for node in nodes if "int8-static" in node.formats}
        return dict.fromkeys(_chosen(spec, path, able), "int8-static")
    if spec.mode == "weight-only":
        by_name = {node.name: node for node in nodes if "int8-weight" in node.formats}
        able = {name: node.op_type for name, node in by_name.items()}
        if not able:
            raise InputError(
                "weight-only quantization",
                found=", ".join(sorted({node.op_type for node in nodes}))
                or "no node with stored float32 weights",
                wanted="a MatMul, Gemm or Gather with stored float32 weights",
                remedy="Use mode 'static' for convolutions.",
            )
        wanted: Format = "int8-weight" if spec.bits == 8 else "int4-weight"
        return {
            name: wanted if wanted in by_name[name].formats else "int8-weight"
            for name in _chosen(spec, path, able)
        }
    return {}


def _chosen(spec: QuantizeSpec, path: Path, able: Mapping[str, str]) -> list[str]:
    return chosen_nodes(
        able,
        include=spec.include_nodes,
        exclude=spec.exclude_nodes,
        operators=spec.include_ops,
        all_names=graph_nodes(path),
    )


def _check_size(spec: QuantizeSpec, path: Path, formats: Mapping[str, Format]) -> None:
    """Refuse, before data is loaded, what ONNX Runtime's calibration can't do; all the rest takes any size."""
    size = file_size(path)
    if fits_one_file(size):
        return
    calibrated = sorted({wanted for wanted in formats.values() if wanted in _CALIBRATED})
    if calibrated or spec.mode == "static":
        raise InputError(
            f"formats {', '.join(calibrated)}" if calibrated else "mode 'static'",
            found=f"a model of {size} bytes",
            wanted=f"at most {ONE_FILE}, since it has to be run on the calibration data as one file",
            remedy="Choose mode 'dynamic' or 'weight-only', or formats int8-dynamic, int8-weight or int4-weight:"
            " they take models of any size.",
        )


def _write(
    spec: QuantizeSpec, path: Path, folder: Path, formats: dict[str, Format], context: StepContext
) -> None:
    target = folder / MODEL
    batch = read_signature(path).fixed_batch or (PLAN_BATCH if spec.mode == "plan" else _BATCH)
    if spec.mode == "none":
        copy_model(path, folder)
    elif spec.mode == "dynamic":
        left = _left_out(spec, path)
        quantize_dynamic(path, target, per_channel=spec.per_channel, exclude_nodes=left)
    elif spec.mode == "static" and not formats:
        excluded = _left_out(spec, path)
        data = _calibration(spec, path, context)
        quantize_static(
            path, target, data, per_channel=spec.per_channel, batch_size=batch, exclude_nodes=excluded
        )
    else:
        calibrated = any(wanted in _CALIBRATED for wanted in formats.values())
        quantize_mixed(
            path,
            target,
            formats,
            calibration=_calibration(spec, path, context) if calibrated else None,
            batch_size=batch,
            per_channel=spec.per_channel,
        )


def _left_out(spec: QuantizeSpec, path: Path) -> list[str]:
    """Names of the nodes that the spec leaves in fp32."""
    nodes = graph_nodes(path)
    if not (spec.include_nodes or spec.include_ops or spec.exclude_nodes):
        return []
    chosen = set(_chosen(spec, path, nodes))
    return [name for name in nodes if name not in chosen]


def _calibration(spec: QuantizeSpec, path: Path, context: StepContext) -> dict[str, np.ndarray]:
    if spec.data is None:
        raise InputError(
            "static quantization needs data to find the ranges of activations",
            found="no data",
            wanted="data whose split 'train' holds inputs as requests bring them (targets may be None)",
            remedy="Give `data`, or choose mode 'dynamic', which finds the ranges at run time.",
        )
    data = load_data(spec.data, "train", context.resolve).spread(spec.calibration_samples)
    return data_for(data, read_signature(path))


STEP = Step(
    name="quantize",
    summary="Export to ONNX and quantize to 8 or 4 bits.",
    spec=QuantizeSpec,
    function=quantize,
    inputs=("model",),
    version=2,
    libraries=("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors"),
)
