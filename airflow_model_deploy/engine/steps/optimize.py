"""Choose graph optimizations and session settings for this kind of CPU, by measurement, kept only where they gain."""

from __future__ import annotations

import json
import logging
from typing import Annotated

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description
from airflow_model_deploy.engine.compression import Choice, apply_choice, choose
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    DataSource,
    file_size,
    onnx_precision,
    onnx_sha256,
    read_signature,
)
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.build import SESSION
from airflow_model_deploy.engine.steps.export import MODEL
from airflow_model_deploy.engine.steps.fields import Metric, Threads
from airflow_model_deploy.engine.steps.original import original_of
from airflow_model_deploy.engine.steps.quality import onnx_quality
from airflow_model_deploy.engine.steps.samples import samples_for, unmeasured
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.speed import THROUGHPUT_BATCH, enough, shapes

logger = logging.getLogger(__name__)


@spec
class OptimizeSpec:
    """What is measured, and for how many threads."""

    threads: Threads = 1
    batch_sizes: Annotated[
        tuple[int, ...], Field(min_length=1, description="measured, all counting alike")
    ] = (1, 32)
    data: Annotated[
        DataSource | None,
        Field(description="split 'test' is measured with; None: random inputs by the signature, no quality"),
    ] = None
    metric: Metric = "accuracy"


def optimize(spec: OptimizeSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Measure the candidates once a kind of CPU, pin the choice, write the chosen graph and its session settings."""
    source = inputs["model"]
    if source.format != "onnx":
        raise InputError(
            "only ONNX graphs are optimized",
            found=f"an artifact in format {source.format!r}",
            wanted="'onnx'",
            remedy="Run quantize before; its mode 'none' only exports.",
        )
    path = source.folder / MODEL
    samples = samples_for(path, spec.data, context.resolve, random=THROUGHPUT_BATCH)
    feed = enough(samples.feed)
    parts = {
        "model": onnx_sha256(path),
        "threads": spec.threads,
        "batch_sizes": list(spec.batch_sizes),
        "feed": shapes(feed),
    }
    value = context.pinned(
        "optimize",
        parts,
        lambda: choose(path, feed, threads=spec.threads, batch_sizes=spec.batch_sizes).to_json(),
    )
    choice = Choice.from_json(value)
    logger.info("%s: %s", choice.candidate.name, choice.reason)
    folder = context.folder("model")
    apply_choice(choice, path, folder / MODEL)
    (folder / SESSION).write_text(json.dumps(choice.settings.to_json(), sort_keys=True), encoding="utf-8")
    quality = onnx_quality(
        folder / MODEL,
        spec.data,
        spec.metric,
        context.resolve,
        choice.settings,
        original=original_of(source, context),
    )
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name,
            kind="model",
            format="onnx",
            signature=read_signature(folder / MODEL),
            metrics={
                **quality,
                "precision": onnx_precision(path),
                "model_bytes": file_size(folder / MODEL),
            },
        ),
        main="model",
        measurements={
            "latency_ms": _latency_ms(choice),
            "gain": choice.gain,
            "gain_unoptimized": choice.gain_unoptimized,
        },
        details={
            "chosen": choice.candidate.name,
            "reason": choice.reason,
            "inputs": samples.source,
            **unmeasured(quality, spec.data),
        },
    )


def _latency_ms(choice: Choice) -> float | None:
    found = next(m for m in choice.measurements if m.name == choice.candidate.name)
    return found.seconds[1] * 1e3 if 1 in found.seconds else None


STEP = Step(
    name="optimize",
    summary="Choose graph optimizations and session settings by measurement.",
    spec=OptimizeSpec,
    function=optimize,
    inputs=("model",),
    measured=True,
    libraries=("onnx", "onnxruntime", "numpy"),
)
