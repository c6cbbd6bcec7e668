"""The gates of a test: what a spec asks for, held against what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import GateError
from airflow_model_deploy.engine.evaluation import (
    Gate,
    GateResult,
    Metric,
    check_gates,
    drop_interval,
    drop_of,
    evaluate,
    quality_interval,
    resolve_metric,
    wanted_by,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from airflow_model_deploy.engine.models import Dataset
    from airflow_model_deploy.engine.steps.samples import Samples

    Outputs = Mapping[str, np.ndarray]
    Interval = tuple[float, float]

_MB = 1e6
# The kinds of metrics whose outputs are scores of classes, so that the largest one can be compared.
_OF_CLASSES = ("accuracy", "top5", "agreement")
# Gates on them have names of their own: the metric of the same kind may be of one output, these are of the worst.
_NEAR = {"cosine": "cosine with the original", "agreement": "agreement with the original"}


@dataclass
class Measured:
    """Figures by the names that gates read, and the intervals of those that have one."""

    values: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, Interval | None] = field(default_factory=dict)


def require_judgeable(spec: Any, metric: Metric, samples: Samples, *, compared: bool) -> None:
    """Refuse gates on quality where nothing can be measured that they would judge."""
    judged = ["max_quality_drop", "min_quality", *(["max_drop_from_champion"] if compared else [])]
    gates = [name for name in judged if getattr(spec, name) is not None]
    targets = metric.against == "targets"
    unmeasured = spec.data is None or (targets and samples.data.targets is None)
    if gates and unmeasured:
        raise GateError(
            "the quality of the model can't be judged",
            found=f"{' and '.join(gates)} set, but "
            + ("no data" if spec.data is None else "test data without targets"),
            wanted="data whose split 'test' " + ("has targets" if targets else "holds inputs"),
            remedy=f"Give `data`{' with targets' if targets else ''}, or set {' and '.join(gates)} to None.",
        )
    gates = [name for name in ("min_cosine", "min_agreement") if getattr(spec, name) is not None]
    if gates and spec.data is None:
        raise GateError(
            "what the model gives can't be compared with the original",
            found=f"{' and '.join(gates)} set, but no data",
            wanted="data whose split 'test' holds inputs; targets may be None",
            remedy=f"Give `data`, or set {' and '.join(gates)} to None.",
        )


def drops(
    metric: Metric,
    options: dict[str, Any],
    data: Dataset,
    found: Mapping[str, Any],
    others: Mapping[str, tuple[Mapping[str, Any], Outputs] | None],
    outputs: Outputs,
    original: Outputs,
) -> dict[str, dict[str, Any]]:
    """Return {"drop", "drop_ci"} against each of the others: "baseline", "champion".

    Args:
        metric: the spec's.
        options: of a user's function.
        data: the test samples.
        found: the candidate's quality, as `score` gives it.
        others: name -> its quality and its outputs.
        outputs: the candidate's.
        original: the original model's outputs.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, other in others.items():
        if other is None or "quality" not in found:
            continue
        quality, theirs = other
        wanted = wanted_by(metric, data.targets, original)
        drop = drop_of(
            metric.name, found["quality"], quality["quality"], higher_is_better=metric.higher_is_better
        )
        interval = drop_interval(metric, outputs, theirs, wanted, **options)
        result[name] = {"drop": drop, "drop_ci": list(interval) if interval else None}
    return result


def fidelity(outputs: Outputs, original: Outputs, *, classes: bool) -> dict[str, Any]:
    """Return how near the answers are to the original's: the worst output's cosine and top-1 agreement.

    No cosine is told where an output holds NaN or infinity, and no agreement where none has scores of classes.

    Args:
        outputs: the candidate's.
        original: the original model's.
        classes: whether outputs of two dimensions are scores of classes.
    """
    import numpy as np

    told: dict[str, Any] = {}
    floats = [n for n, array in original.items() if array.dtype.kind == "f"]
    finite = [n for n in floats if np.isfinite(original[n]).all() and np.isfinite(outputs[n]).all()]
    scores = [n for n in floats if classes and original[n].ndim == 2 and original[n].shape[1] > 1]
    for kind, names in (("cosine", finite if finite == floats else []), ("agreement", scores)):
        by_output = {}
        for name in names:
            one = resolve_metric(f"{kind}:{name}")
            by_output[name] = (
                evaluate(outputs, metric=one, reference=original),
                quality_interval(one, outputs, original),
            )
        if by_output:
            told[kind], interval = min(by_output.values(), key=lambda pair: pair[0])
            told[f"{kind}_ci"] = list(interval) if interval else None
    return told


def scores_classes(spec: Any, found: Mapping[str, Any]) -> bool:
    """Whether the outputs are scores of classes, by the metric that measured them or by what a gate asks for."""
    return spec.min_agreement is not None or (
        "quality" in found and str(found["metric"]).partition(":")[0] in _OF_CLASSES
    )


def judge(
    spec: Any,
    found: Mapping[str, Any],
    compared: Mapping[str, Mapping[str, Any] | None],
    dropped: Mapping[str, Mapping[str, Any]],
    near: Mapping[str, Any],
    costs: Mapping[str, float],
) -> tuple[GateResult, ...]:
    """Hold what was measured to the spec's gates.

    Args:
        spec: the test's.
        found: the candidate's quality.
        compared: the quality of "baseline" and "champion"; None where there is none.
        dropped: as `drops` gives it.
        near: as `fidelity` gives it.
        costs: size_bytes, compressed_bytes, size_ratio, speedup, latency_ms, memory_bytes.
    """
    metric = str(found.get("metric", "quality"))
    intervals = {name: _pair(one["drop_ci"]) for name, one in dropped.items()}
    measured = Measured(
        values={
            **costs,
            **{name: near.get(kind) for kind, name in _NEAR.items()},
            metric: found.get("quality"),
            **{f"{name}.{metric}": (one or {}).get("quality") for name, one in compared.items()},
        },
        intervals={
            **{name: _pair(near.get(f"{kind}_ci")) for kind, name in _NEAR.items()},
            metric: _pair(found.get("quality_ci")),
            **{f"{name}.{metric}": interval for name, interval in intervals.items()},
        },
    )
    gates = _gates(spec, metric, bool(found.get("higher_is_better", True)), compared)
    return check_gates(gates, measured.values, measured.intervals, samples=found.get("samples"))


def _gates(
    spec: Any, metric: str, higher: bool, compared: Mapping[str, Mapping[str, Any] | None]
) -> list[Gate]:
    sure = bool(spec.confident)
    own = {"metric": metric, "higher_is_better": higher, "confident": sure}
    limits: list[tuple[float | None, dict[str, Any]]] = [
        (spec.max_quality_drop, {"kind": "max_drop", **own}),
        (spec.max_drop_from_champion if compared.get("champion") else None,
         {"kind": "max_drop", "against": "champion", **own}),
        (spec.min_quality, {"kind": "min_value" if higher else "max_value", **own}),
        (spec.min_cosine, {"kind": "min_value", "metric": _NEAR["cosine"], "confident": sure}),
        (spec.min_agreement, {"kind": "min_value", "metric": _NEAR["agreement"], "confident": sure}),
        (spec.min_size_ratio, {"kind": "min_size_ratio"}),
        (_times(spec.max_size_mb, _MB), {"kind": "max_size_bytes"}),
        (_times(spec.max_compressed_mb, _MB), {"kind": "max_compressed_bytes"}),
        (spec.min_speedup, {"kind": "min_speedup"}),
        (spec.max_latency_ms, {"kind": "max_latency_ms"}),
        (_times(spec.max_memory_mb, _MB), {"kind": "max_memory_bytes"}),
    ]  # fmt: skip
    return [Gate(limit=limit, **rest) for limit, rest in limits if limit is not None]


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _pair(value: list[float] | None) -> Interval | None:
    return (value[0], value[1]) if value else None


def require(gates: tuple[GateResult, ...]) -> None:
    """Fail where a gate isn't kept."""
    failed = [gate.sentence for gate in gates if not gate.passed]
    if failed:
        raise GateError(
            f"{len(failed)} of {len(gates)} gates failed",
            found="; ".join(failed),
            remedy="Compress less, recover longer, train on more, or change the gate if the loss is acceptable.",
        )
