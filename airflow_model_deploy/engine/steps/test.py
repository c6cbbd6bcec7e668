"""Test the servable in its real server process, against the ingested baseline, and hold it to its gates."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, canonical_json
from airflow_model_deploy.engine.models import DataSource, file_size
from airflow_model_deploy.engine.packaging import read_servable
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.champion import CHAMPION, champion_outputs
from airflow_model_deploy.engine.steps.export import onnx_of
from airflow_model_deploy.engine.steps.fields import Metric
from airflow_model_deploy.engine.steps.judging import (
    drops,
    fidelity,
    judge,
    require,
    require_judgeable,
    scores_classes,
)
from airflow_model_deploy.engine.steps.layout import EVALUATION
from airflow_model_deploy.engine.steps.original import onnx_answers
from airflow_model_deploy.engine.steps.quality import named_metric, score
from airflow_model_deploy.engine.steps.samples import samples_for, unmeasured
from airflow_model_deploy.engine.steps.served import Answers
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.speed import shapes

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

_RANDOM_ROWS = 64
_MEASUREMENT = 2  # raised when `measured` holds other figures, or figures taken otherwise


@spec
class TestSpec:
    """The gates; None means no such gate.

    `max_quality_drop` and `max_drop_from_champion` count percentage points for shares (accuracy, top5, cosine,
    agreement, retrieval), the metric's own unit otherwise.
    """

    data: Annotated[
        DataSource | None,
        Field(description="split 'test' is asked; None: random inputs by the signature, no quality"),
    ] = None
    metric: Metric = "accuracy"
    max_quality_drop: Annotated[float | None, Field(ge=0, description="loss against the ingested model")] = (
        1.0
    )
    max_drop_from_champion: Annotated[
        float | None, Field(ge=0, description="loss against the input 'champion', where one is given")
    ] = 1.0
    min_quality: Annotated[
        float | None, Field(description="least value of the metric (mae, rmse, perplexity: largest)")
    ] = None
    min_cosine: Annotated[
        float | None, Field(le=1, description="mean cosine of the outputs with the ingested model's")
    ] = None
    min_agreement: Annotated[
        float | None,
        Field(ge=0, le=1, description="share of samples whose largest score is that of the ingested model"),
    ] = None
    min_size_ratio: Annotated[
        float | None, Field(gt=0, description="fp32 ONNX bytes / the model's bytes")
    ] = None
    max_size_mb: Annotated[float | None, Field(gt=0, description="the model's file, in MB of 10^6")] = None
    max_compressed_mb: Annotated[
        float | None, Field(gt=0, description="the same compressed by zlib, level 6")
    ] = None
    min_speedup: Annotated[
        float | None, Field(gt=0, description="throughput / that of the fp32 ONNX export")
    ] = None
    max_latency_ms: Annotated[float | None, Field(gt=0, description="median of single requests")] = None
    max_memory_mb: Annotated[
        float | None, Field(gt=0, description="peak memory of the server, in MB of 10^6")
    ] = None
    confident: Annotated[
        bool,
        Field(
            description="gates on quality must hold at the worse end of the 95 % interval, not just on the samples"
        ),
    ] = False
    ready_timeout_s: Annotated[float, Field(gt=0, description="bound for loading and warming the model")] = (
        60.0
    )


def test(spec: TestSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Measure through the server and beside the fp32 export; every gate must hold."""
    source = inputs["servable"]
    servable = read_servable(source.folder)
    metric, options = named_metric(spec.metric, context.resolve)
    samples = samples_for(servable.model, spec.data, context.resolve, random=_RANDOM_ROWS)
    require_judgeable(spec, metric, samples, compared=CHAMPION in inputs)
    baseline_reference, baseline = onnx_of(inputs["baseline"], context)
    original = onnx_answers(baseline, samples.data)
    rival = champion_outputs(inputs[CHAMPION], servable.name, samples.data) if CHAMPION in inputs else None

    def quality(outputs: dict[str, np.ndarray]) -> dict[str, Any]:
        if spec.data is None:
            return {}
        return score(outputs, samples.data, spec.metric, context.resolve, original=original)

    reference = quality(original)
    champion = quality(rival) if rival is not None else None
    answers = Answers(servable, samples.feed, spec.ready_timeout_s)
    measured = context.pinned(
        "test",
        {
            "servable": source.reference.digest,
            "baseline": baseline_reference.digest,
            "feed": shapes(samples.feed),
            "measurement": _MEASUREMENT,
        },
        lambda: answers.measure(baseline, context.folder("original")),
    )
    outputs = answers.outputs()
    found = quality(outputs)
    others = {
        "baseline": (reference, original),
        "champion": (champion, rival) if champion and rival is not None else None,
    }
    dropped = drops(metric, options, samples.data, found, others, outputs, original)
    near = fidelity(outputs, original, classes=scores_classes(spec, found))
    size, original_size = file_size(servable.model), file_size(baseline)
    costs = {
        "size_bytes": size,
        "compressed_bytes": measured["compressed_bytes"],
        "size_ratio": original_size / size,
        "speedup": measured["speedup"],
        "latency_ms": measured["latency_ms"],
        "memory_bytes": measured["peak_memory_bytes"],
    }
    gates = judge(spec, found, {"baseline": reference, "champion": champion}, dropped, near, costs)
    for gate in gates:
        logger.info("%s", gate.sentence)
    require(gates)
    told = {
        "gates": [gate.to_json() for gate in gates],
        "baseline_quality": reference.get("quality"),
        "baseline_quality_ci": reference.get("quality_ci"),
        "champion_quality": champion.get("quality") if champion else None,
        "champion_quality_ci": champion.get("quality_ci") if champion else None,
        "drop_from_champion": dropped.get("champion", {}).get("drop"),
        "drop_from_champion_ci": dropped.get("champion", {}).get("drop_ci"),
        "fidelity": near,
        "model_bytes": size,
        "baseline_bytes": original_size,
        "baseline_compressed_bytes": measured["baseline_compressed_bytes"],
    }
    metrics = {
        **found,
        **dropped.get("baseline", {}),
        **near,
        "size_ratio": original_size / size,
        "compressed_bytes": measured["compressed_bytes"],
    }
    folder = context.folder("evaluation")
    evaluation = {
        "schema_version": 1,
        "servable_digest": servable.digest,
        "champion": inputs.references[CHAMPION].digest if CHAMPION in inputs else None,
        "metrics": metrics,
        "measured": measured,
        **told,
    }
    (folder / EVALUATION).write_bytes(canonical_json(evaluation))
    return StepOutput(
        folder=folder,
        description=Description(name=servable.name, kind="evaluation", format="json", metrics=metrics),
        main="servable",
        measurements=measured,
        details={**told, "inputs": samples.source, **unmeasured(found, spec.data)},
    )


STEP = Step(
    name="test",
    summary="Test the servable in its real server against its gates.",
    spec=TestSpec,
    function=test,
    inputs=("servable", "baseline"),
    optional=(CHAMPION,),
    compared=(CHAMPION,),
    measured=True,
    version=2,
    libraries=(
        "torch",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "safetensors",
        "numpy",
        "httpx",
        "uvicorn",
        "httptools",
        "uvloop",
        "orjson",
        "prometheus-client",
    ),
)
