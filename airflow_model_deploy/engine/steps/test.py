"""Test the servable in its real server process, against the ingested baseline, and hold it to its gates."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, canonical_json
from airflow_model_deploy.engine.errors import GateError
from airflow_model_deploy.engine.evaluation import Gate, GateResult, check_gates
from airflow_model_deploy.engine.models import (
    DataSource,
    SessionSettings,
)
from airflow_model_deploy.engine.packaging import Servable, read_servable
from airflow_model_deploy.engine.probing import Client, ask, load_golden, serve
from airflow_model_deploy.engine.progress import progress
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.champion import CHAMPION, champion_quality
from airflow_model_deploy.engine.steps.export import onnx_of
from airflow_model_deploy.engine.steps.fields import Metric
from airflow_model_deploy.engine.steps.layout import EVALUATION
from airflow_model_deploy.engine.steps.quality import onnx_quality, score
from airflow_model_deploy.engine.steps.samples import Samples, samples_for, unmeasured
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.speed import first_rows, shapes, speedup_at_batch

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

logger = logging.getLogger(__name__)

_REQUEST_ROWS = 64
_LATENCY_REQUESTS = 100


@spec
class TestSpec:
    """The gates; None means no such gate.

    `max_quality_drop` and `max_drop_from_champion` count percentage points for accuracy, the metric's own unit
    otherwise.
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
        float | None, Field(description="least value of the metric (mae, rmse: largest)")
    ] = None
    min_size_ratio: Annotated[
        float | None, Field(gt=0, description="fp32 ONNX bytes / the model's bytes")
    ] = None
    min_speedup: Annotated[
        float | None, Field(gt=0, description="throughput / that of the fp32 ONNX export")
    ] = None
    max_latency_ms: Annotated[float | None, Field(gt=0, description="median of single requests")] = None
    max_memory_mb: Annotated[
        float | None, Field(gt=0, description="peak memory of the server, in MB of 10^6")
    ] = None
    ready_timeout_s: Annotated[float, Field(gt=0, description="bound for loading and warming the model")] = (
        60.0
    )


def test(spec: TestSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Measure through the server and beside the fp32 export; every gate must hold."""
    source = inputs["servable"]
    servable = read_servable(source.folder)
    samples = samples_for(servable.model, spec.data, context.resolve, random=_REQUEST_ROWS)
    _require_judgeable(spec, samples, compared=CHAMPION in inputs)
    baseline_reference, baseline = onnx_of(inputs["baseline"], context)
    reference = onnx_quality(baseline, spec.data, spec.metric, context.resolve)
    champion = (
        champion_quality(inputs[CHAMPION], servable.name, spec.data, spec.metric, context)
        if CHAMPION in inputs
        else None
    )
    answers = _Answers(servable, samples.feed, spec.ready_timeout_s)
    measured = context.pinned(
        "test",
        {
            "servable": source.reference.digest,
            "baseline": baseline_reference.digest,
            "feed": shapes(samples.feed),
        },
        lambda: {**answers.measure(), **_speed(servable, baseline, samples.feed)},
    )
    found = score(answers.outputs(), samples.data, spec.metric, context.resolve)
    size, original = servable.model.stat().st_size, baseline.stat().st_size
    gates = _judge(spec, found, reference, champion, measured, original / size)
    for gate in gates:
        logger.info("%s", gate.sentence)
    evaluation = {
        "schema_version": 1,
        "servable_digest": servable.digest,
        "quality": found,
        "baseline_quality": reference,
        "champion": inputs.references[CHAMPION].digest if CHAMPION in inputs else None,
        "champion_quality": champion,
        "model_bytes": size,
        "baseline_bytes": original,
        "size_ratio": original / size,
        "measured": measured,
        "gates": [gate.to_json() for gate in gates],
    }
    _require(gates)
    folder = context.folder("evaluation")
    (folder / EVALUATION).write_bytes(canonical_json(evaluation))
    return StepOutput(
        folder=folder,
        description=Description(
            name=servable.name,
            kind="evaluation",
            format="json",
            metrics={**found, "size_ratio": original / size},
        ),
        main="servable",
        measurements=measured,
        details={
            "gates": [gate.to_json() for gate in gates],
            "baseline_quality": reference.get("quality"),
            "champion_quality": champion.get("quality") if champion else None,
            "baseline_bytes": original,
            "model_bytes": size,
            "inputs": samples.source,
            **unmeasured(found, spec.data),
        },
    )


def _require_judgeable(spec: TestSpec, samples: Samples, *, compared: bool) -> None:
    judged = ["max_quality_drop", "min_quality", *(["max_drop_from_champion"] if compared else [])]
    gates = [name for name in judged if getattr(spec, name) is not None]
    if gates and samples.data.targets is None:
        raise GateError(
            "the quality of the model can't be judged",
            found=f"{' and '.join(gates)} set, but "
            + ("no data" if spec.data is None else "test data without targets"),
            wanted="data whose split 'test' has targets",
            remedy=f"Give `data` with targets, or set {' and '.join(gates)} to None.",
        )


class _Answers:
    """The servable's answers through its real server; the server runs once, whatever is asked of it."""

    def __init__(self, servable: Servable, feed: dict[str, np.ndarray], timeout_s: float) -> None:
        self._servable, self._feed, self._timeout_s = servable, feed, timeout_s
        self._outputs: dict[str, np.ndarray] | None = None
        self._measured: dict[str, Any] = {}

    def measure(self) -> dict[str, Any]:
        self.outputs()
        return self._measured

    def outputs(self) -> dict[str, np.ndarray]:
        if self._outputs is None:
            self._outputs = self._ask()
        return self._outputs

    def _ask(self) -> dict[str, np.ndarray]:
        servable = self._servable
        start = time.monotonic()
        with (
            serve(server_command(servable.folder), ready_timeout_s=self._timeout_s) as server,
            Client(server.base_url, servable.name) as client,
        ):
            started = time.monotonic() - start
            _require_golden(client, servable)
            fixed = servable.signature.fixed_batch
            outputs = _predict(client, self._feed, fixed)
            latencies = _latencies(client, first_rows(self._feed, fixed or 1))
            self._measured = {
                "latency_ms": statistics.median(latencies),
                "latency_p95_ms": statistics.quantiles(latencies, n=20)[-1],
                "peak_memory_bytes": server.peak_memory_bytes(),
                "start_s": started,
            }
        return outputs


def server_command(servable: Path) -> list[str]:
    """Return the command that serves a folder with this interpreter."""
    return [sys.executable, "-P", "-m", "airflow_model_deploy.engine.serving", "--servable", str(servable)]


def _require_golden(client: Client, servable: Servable) -> None:
    if servable.golden is None:
        raise GateError(
            f"the servable of {servable.name} has no golden requests",
            wanted="at least 16",
            remedy="Build it with the build step.",
        )
    comparison = ask(client, load_golden(servable.golden))
    logger.info("%s", comparison.summary)
    if not comparison.passed:
        raise GateError(
            "the server's answers are not the golden ones",
            found="\n".join((comparison.summary, *comparison.mismatches)),
            wanted=f"{comparison.total} of {comparison.total} within tolerance",
            remedy="Look at what changed between build and test: the CPU, ONNX Runtime, the session settings.",
        )


def _predict(client: Client, feed: dict[str, np.ndarray], fixed: int | None) -> dict[str, np.ndarray]:
    """Ask in batches; a model bound to one gets the last one filled up, and what fills it is dropped."""
    import numpy as np

    total, rows = len(next(iter(feed.values()))), fixed or _REQUEST_ROWS
    parts: list[dict[str, np.ndarray]] = []
    for start in progress(range(0, total, rows), "test requests"):
        batch = {name: array[start : start + rows] for name, array in feed.items()}
        count = min(rows, total - start)
        answer = client.infer(first_rows(batch, rows) if fixed else batch)
        parts.append({name: array[:count] for name, array in answer.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _latencies(client: Client, one: dict[str, np.ndarray]) -> list[float]:
    latencies = []
    for _ in range(_LATENCY_REQUESTS):
        start = time.perf_counter()
        client.infer(one)
        latencies.append((time.perf_counter() - start) * 1e3)
    return latencies


def _speed(servable: Servable, baseline: Path, feed: dict[str, np.ndarray]) -> dict[str, float]:
    return speedup_at_batch(servable.model, SessionSettings.from_json(servable.session), baseline, feed)


def _judge(
    spec: TestSpec,
    found: dict[str, Any],
    reference: dict[str, Any],
    champion: dict[str, Any] | None,
    measured: dict[str, Any],
    size_ratio: float,
) -> tuple[GateResult, ...]:
    metric = str(found.get("metric", "quality"))
    higher = bool(found.get("higher_is_better", True))
    limits: list[Gate | None] = [
        _gate("max_drop", spec.max_quality_drop, metric, higher),
        _gate("max_drop", spec.max_drop_from_champion, metric, higher, "champion")
        if champion is not None
        else None,
        _gate("min_value" if higher else "max_value", spec.min_quality, metric),
        _gate("min_size_ratio", spec.min_size_ratio),
        _gate("min_speedup", spec.min_speedup),
        _gate("max_latency_ms", spec.max_latency_ms),
        _gate("max_memory_bytes", None if spec.max_memory_mb is None else spec.max_memory_mb * 1e6),
    ]
    return check_gates(
        [gate for gate in limits if gate],
        {
            metric: found.get("quality"),
            f"baseline.{metric}": reference.get("quality"),
            f"champion.{metric}": champion.get("quality") if champion else None,
            "size_ratio": size_ratio,
            "speedup": measured["speedup"],
            "latency_ms": measured["latency_ms"],
            "memory_bytes": measured["peak_memory_bytes"],
        },
    )


def _gate(
    kind: Any,
    limit: float | None,
    metric: str | None = None,
    higher: bool | None = None,
    against: Any = "baseline",
) -> Gate | None:
    if limit is None:
        return None
    return Gate(kind=kind, limit=limit, metric=metric, higher_is_better=higher, against=against)


def _require(gates: tuple[GateResult, ...]) -> None:
    failed = [gate.sentence for gate in gates if not gate.passed]
    if failed:
        raise GateError(
            f"{len(failed)} of {len(gates)} gates failed",
            found="; ".join(failed),
            remedy="Compress less, recover longer, train on more, or change the gate if the loss is acceptable.",
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
