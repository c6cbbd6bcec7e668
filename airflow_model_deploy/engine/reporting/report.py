"""The report of one run as JSON: what every stage cost and gained, the plan, what is served, and the verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.reporting.plan import plan_part
from airflow_model_deploy.engine.reporting.rollouts import rollouts_part
from airflow_model_deploy.engine.reporting.wording import kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA_VERSION = 3
_STAGE = (
    "stage",
    "digest",
    "parent",
    "size_bytes",
    "size_of",
    "compressed_bytes",
    "metric",
    "quality",
    "quality_ci",
    "latency_ms",
    "latency_of",
    "zero_fraction",
    "zeros_before",
    "zeros_after",
    "duration_s",
    "cached",
)
_FIGURES = (
    "size_bytes", "compressed_bytes", "quality", "latency_ms", "zero_fraction", "zeros_before", "zeros_after",
    "duration_s",
)  # fmt: skip
_COMPRESSION = (
    "size_ratio",
    "speedup",
    "baseline_quality",
    "quality",
    "quality_ci",
    "drop",
    "drop_ci",
    "cosine",
    "agreement",
    "before",
    "after",
)
_COST = ("size_bytes", "compressed_bytes", "throughput_per_s", "cpu_ms", "latency_ms", "peak_memory_bytes")
_SERVED = ("golden_requests", "matched", "max_abs_error", "tolerance", "url")
_GATE = ("name", "found", "wanted", "passed", "interval")
_ENVIRONMENT = ("versions", "cpu", "cpu_features", "cpus", "threads")


def build_report(
    stages: Sequence[Mapping[str, Any]],
    *,
    compression: Mapping[str, Any] | None,
    served: Mapping[str, Any] | None,
    verdict: Mapping[str, Any] | str | None,
    environment: Mapping[str, Any] | None = None,
    gates: Sequence[Mapping[str, Any]] = (),
    model: str | None = None,
    run_id: str | None = None,
    metric: str | None = None,
    higher_is_better: bool = True,
    plan: Mapping[str, Any] | None = None,
    rollouts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Put the parts together; what a part leaves out becomes null, what it adds is refused.

    Args:
        stages: in order, each with its `stage` (name) and any of digest, parent (digests), size_bytes, size_of
            ("model", "release" with what travels along, or "image" with its base), compressed_bytes (by zlib),
            metric (where it is not the report's), quality, quality_ci ([low, high]), latency_ms, latency_of
            ("model": CPU time of the model alone; "request": to its server and back), zero_fraction (of the
            weights, 0 to 1), zeros_before and zeros_after (counted around the stage), duration_s, cached.
        compression: size_ratio and speedup (before / after), baseline_quality, quality, quality_ci, drop (how much
            worse, in the unit of the gates) and drop_ci, cosine and agreement (with the original's answers); and
            `before` and `after`: size_bytes, compressed_bytes, throughput_per_s (samples per CPU second), cpu_ms (a
            sample through the model alone), latency_ms (a request), peak_memory_bytes (of the server).
        served: golden_requests, matched, max_abs_error, tolerance, url.
        verdict: status and reasons, or the status alone.
        environment: versions (tool -> version), cpu (its model), cpu_features, cpus (how many may be used),
            threads (those of the served model).
        gates: each with name, found, wanted, passed, interval (of what was found).
        model: the model's name.
        run_id: which run this was.
        metric: what quality is measured by.
        higher_is_better: of the metric.
        plan: the compression plan: plan.json's content, or any part of it.
        rollouts: those of the service that are to be shown, the last one being this run's: each with any of revision,
            action ("deploy" or "rollback"), result, reason, at (ISO 8601), changes (lines), left_out (kinds that the
            cluster doesn't serve), golden (total, matched) and phases: name, status, watched_s, reasons, and the
            counts of the new revision (canary) and of the old one beside it (stable): requests, errors, slow,
            restarts, ready, wanted.

    Raises:
        InputError: no stage, a stage without a name, an unknown key, or a plan or a rollout whose parts have wrong
            types.
    """
    if not stages:
        raise InputError("a report's stages", found="none", wanted="1 or more")
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "run_id": run_id,
        "metric": None if metric is None else {"name": metric, "higher_is_better": higher_is_better},
        "stages": [_stage(stage, metric) for stage in stages],
        "compression": _compression(compression or {}, metric),
        "plan": plan_part(plan),
        "served": None if served is None else _filled(served, _SERVED, "served"),
        "gates": [_gate(gate) for gate in gates],
        "verdict": _verdict(verdict),
        "rollouts": rollouts_part(rollouts),
        "environment": None if environment is None else _filled(environment, _ENVIRONMENT, "environment"),
    }


def _stage(stage: Mapping[str, Any], metric: str | None) -> dict[str, Any]:
    row = _filled(stage, _STAGE, "stage")
    if not row["stage"]:
        raise InputError("a report's stage", found=row, wanted="a name under 'stage'")
    row |= {key: _finite(row[key]) for key in _FIGURES}
    row["quality_ci"] = _interval(row["quality_ci"])
    row["metric"] = row["metric"] or (metric if row["quality"] is not None else None)
    row["size_of"] = row["size_of"] or (None if row["size_bytes"] is None else "model")
    row["latency_of"] = row["latency_of"] or (None if row["latency_ms"] is None else "model")
    return {**row, "cached": bool(row["cached"]), "accuracy": _accuracy(row["quality"], row["metric"])}


def _compression(part: Mapping[str, Any], metric: str | None) -> dict[str, Any]:
    row = {key: _finite(value) for key, value in _filled(part, _COMPRESSION, "compression").items()}
    return {
        **row,
        "quality_ci": _interval(row["quality_ci"]),
        "drop_ci": _interval(row["drop_ci"]),
        "accuracy_drop_points": _accuracy(row["drop"], metric),
        **{
            when: {key: _finite(value) for key, value in _filled(row[when] or {}, _COST, when).items()}
            for when in ("before", "after")
        },
    }


def _gate(gate: Mapping[str, Any]) -> dict[str, Any]:
    row = _filled(gate, _GATE, "gate")
    return {**row, "found": _finite(row["found"]), "interval": _interval(row["interval"])}


def _accuracy(value: float | None, metric: str | None) -> float | None:
    """The value where it is one of accuracy: the figure that readers of every version find under that name."""
    return value if kind(metric) == "accuracy" else None


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _interval(ends: Sequence[float] | None) -> list[float] | None:
    if ends is None or len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
        return None
    return [float(end) for end in ends] if all(math.isfinite(end) for end in ends) else None


def _filled(part: Mapping[str, Any], keys: tuple[str, ...], what: str) -> dict[str, Any]:
    unknown = sorted(set(part) - set(keys))
    if unknown:
        raise InputError(f"a report's {what}", found=f"unknown {unknown}", wanted=f"only {list(keys)}")
    return {key: part.get(key) for key in keys}


def _verdict(verdict: Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    if isinstance(verdict, str):
        return {"status": verdict, "reasons": []}
    return {"status": str(verdict["status"]), "reasons": [str(r) for r in verdict.get("reasons", ())]}
