"""The report of one run as JSON: what every stage cost and gained, what is served, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA_VERSION = 1
_STAGE = (
    "stage",
    "digest",
    "parent",
    "size_bytes",
    "accuracy",
    "latency_ms",
    "duration_s",
    "cached",
)
_COMPRESSION = (
    "size_ratio",
    "speedup",
    "accuracy_drop_points",
    "throughput_per_s",
    "baseline_throughput_per_s",
)
_SERVED = ("golden_requests", "matched", "max_abs_error", "tolerance", "url")
_GATE = ("name", "found", "wanted", "passed")


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
) -> dict[str, Any]:
    """Put the parts together; what a part leaves out becomes null, what it adds is refused.

    Args:
        stages: in order, each with its `stage` (name) and any of digest, parent (digests), size_bytes,
            accuracy (0 to 1), latency_ms, duration_s, cached.
        compression: size_ratio and speedup (before / after), accuracy_drop_points (percentage points), and the
            two throughputs that the speedup is made of (samples per CPU second).
        served: golden_requests, matched, max_abs_error, tolerance, url.
        verdict: status and reasons, or the status alone.
        environment: tool versions, the CPU: name -> value.
        gates: each with name, found, wanted, passed.
        model: the model's name.
        run_id: which run this was.

    Raises:
        InputError: no stage, a stage without a name, or an unknown key.
    """
    if not stages:
        raise InputError("a report's stages", found="none", wanted="1 or more")
    rows = [_filled(stage, _STAGE, "stage") for stage in stages]
    if any(not row["stage"] for row in rows):
        raise InputError("a report's stage", found=rows, wanted="a name under 'stage'")
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "run_id": run_id,
        "stages": rows,
        "compression": _filled(compression or {}, _COMPRESSION, "compression"),
        "served": None if served is None else _filled(served, _SERVED, "served"),
        "gates": [_filled(gate, _GATE, "gate") for gate in gates],
        "verdict": _verdict(verdict),
        "environment": dict(environment or {}),
    }


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
