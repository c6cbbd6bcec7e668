"""Quantize to int8 in ONNX: full static with calibration data, or dynamic."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description
from airflow_model_deploy.engine.compression import quantize_dynamic, quantize_static
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    Dataset,
    DataSource,
    load_data,
    onnx_precision,
    read_signature,
)
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.export import MODEL, copy_model, onnx_of
from airflow_model_deploy.engine.steps.fields import Metric
from airflow_model_deploy.engine.steps.quality import onnx_quality
from airflow_model_deploy.engine.steps.samples import samples_for, unmeasured
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.speed import cpu_latency_ms
from airflow_model_deploy.engine.steps.torch_artifacts import data_for

logger = logging.getLogger(__name__)

Mode = Literal["none", "static", "dynamic"]
_BATCH = 32


@spec
class QuantizeSpec:
    """How weights and activations become integers.

    `static` quantizes weights and activations with ranges from calibration data (best for convolutions);
    `dynamic` quantizes the weights of matrix products and finds activations' ranges at run time (best for
    transformers); `none` only exports to ONNX.
    """

    mode: Mode = "static"
    per_channel: Annotated[bool, Field(description="a scale of its own for each output channel")] = True
    calibration_samples: Annotated[int, Field(ge=1, description="taken evenly from the training split")] = 256
    exclude_nodes: Annotated[tuple[str, ...], Field(description="names of graph nodes left in fp32")] = ()
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
    folder = context.folder("model")
    target = folder / MODEL
    signature = read_signature(path)
    if spec.mode == "static":
        quantize_static(
            path,
            target,
            data_for(_calibration(spec, context), signature),
            per_channel=spec.per_channel,
            batch_size=signature.fixed_batch or _BATCH,
            exclude_nodes=spec.exclude_nodes,
        )
    elif spec.mode == "dynamic":
        quantize_dynamic(path, target, per_channel=spec.per_channel, exclude_nodes=spec.exclude_nodes)
    else:
        copy_model(path, folder)
    samples = samples_for(path, spec.data, context.resolve, random=signature.fixed_batch or 1)
    quality = onnx_quality(target, spec.data, spec.metric, context.resolve)
    metrics: dict[str, Any] = {
        **quality,
        "precision": onnx_precision(target),
        "exported_bytes": path.stat().st_size,
        "model_bytes": target.stat().st_size,
    }
    logger.info("%s: %d bytes, exported were %d", spec.mode, target.stat().st_size, path.stat().st_size)
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
        details={"mode": spec.mode, "inputs": samples.source, **unmeasured(quality, spec.data)},
    )


def _calibration(spec: QuantizeSpec, context: StepContext) -> Dataset:
    if spec.data is None:
        raise InputError(
            "static quantization needs data to find the ranges of activations",
            found="no data",
            wanted="data whose split 'train' holds inputs as requests bring them (targets may be None)",
            remedy="Give `data`, or choose mode 'dynamic', which finds the ranges at run time.",
        )
    return load_data(spec.data, "train", context.resolve).spread(spec.calibration_samples)


STEP = Step(
    name="quantize",
    summary="Export to ONNX and quantize to int8.",
    spec=QuantizeSpec,
    function=quantize,
    inputs=("model",),
    libraries=("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors"),
)
