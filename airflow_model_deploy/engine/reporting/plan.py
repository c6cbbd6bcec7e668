"""The compression plan as the report shows it: reads plan.json, or what a result tells of it; decides nothing."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEPT = "fp32"  # the format of a layer that a plan doesn't name
_BUDGET = ("max_drop", "max_size_bytes", "max_latency_ms")
_PREDICTED = ("loss", "size_bytes", "latency_ms")
_VERIFIED = (
    "loss", "quality", "baseline_quality", "drop", "size_bytes", "latency_ms", "baseline_size_bytes",
    "baseline_latency_ms",
)  # fmt: skip
_CANDIDATE = ("size_bytes", "latency_ms", "quality", "drop", "loss")
_PER_FORMAT = ("losses", "milliseconds", "bytes")


def plan_part(plan: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what the report shows of a plan: every key there, null where the plan says nothing.

    Without `sensitivity` and `formats`, `layers` (format -> count) tells what the layers became. A number that is
    not finite becomes null. Keys that the report doesn't show are left out.

    Raises:
        InputError: a part has the wrong type.
    """
    if plan is None:
        return None
    formats = {str(name): str(value) for name, value in _object(plan, "formats").items()}
    sensitivity = [_layer(layer, formats) for layer in _objects(plan, "sensitivity")]
    higher = plan.get("higher_is_better")
    return {
        "metric": _text(plan.get("metric")),
        "higher_is_better": True if higher is None else bool(higher),
        "loss_name": _text(plan.get("loss_name")) or "loss",
        "reason": _text(plan.get("reason")),
        "budget": _figures(_object(plan, "budget"), _BUDGET, "budget"),
        "structure": _structure(plan),
        "layers": _layers(plan, formats, sensitivity),
        "predicted": _figures(_object(plan, "predicted"), _PREDICTED, "predicted"),
        "verified": _figures(_object(plan, "verified"), _VERIFIED, "verified"),
        "candidates": _candidates(_objects(plan, "candidates")),
        "sensitivity": sensitivity,
    }


def _layer(layer: Mapping[str, Any], formats: Mapping[str, str]) -> dict[str, Any]:
    name = str(layer.get("layer"))
    what = f"sensitivity of {name}"
    return {
        "layer": name,
        "op": _text(layer.get("op")),
        "elements": _figure(layer.get("elements"), f"{what}: elements"),
        **{
            part: {str(k): _figure(v, f"{what}: {part}") for k, v in _object(layer, part).items()}
            for part in _PER_FORMAT
        },
        "chosen": _text(layer.get("chosen")) or formats.get(name, KEPT),
    }


def _candidates(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By size, numbered as the chart names them."""
    rows = [
        {
            "name": str(candidate.get("name")),
            **_figures(candidate, _CANDIDATE, f"candidate {candidate.get('name')}"),
            "within_budget": None
            if candidate.get("within_budget") is None
            else bool(candidate["within_budget"]),
            "chosen": bool(candidate.get("chosen")),
        }
        for candidate in found
    ]
    rows.sort(key=lambda row: math.inf if row["size_bytes"] is None else row["size_bytes"])
    return [{"number": number, **row} for number, row in enumerate(rows, 1)]


def _structure(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    if plan.get("structure") is None:
        return None
    found = _object(plan, "structure")
    return {
        str(name): value if isinstance(value, str | int | float | bool) or value is None else str(value)
        for name, value in found.items()
    }


def _layers(
    plan: Mapping[str, Any], formats: Mapping[str, str], sensitivity: list[dict[str, Any]]
) -> dict[str, int]:
    told = _object(plan, "layers")
    if told:
        return {str(name): int(_figure(value, "layers") or 0) for name, value in told.items()}
    unnamed = [row["chosen"] for row in sensitivity if row["layer"] not in formats]
    return dict(Counter([*formats.values(), *unnamed]).most_common())


def _figures(part: Mapping[str, Any], keys: Iterable[str], what: str) -> dict[str, float | None]:
    return {key: _figure(part.get(key), f"{what}: {key}") for key in keys}


def _figure(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(what, value, "a number or null")
    return value if math.isfinite(value) else None


def _object(part: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = part.get(key)
    if value is not None and not isinstance(value, dict):
        raise _wrong(key, value, "an object or null")
    return value or {}


def _objects(part: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = part.get(key) or []
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise _wrong(key, value, "a list of objects")
    return list(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _wrong(what: str, value: Any, wanted: str) -> InputError:
    return InputError(
        f"the plan's {what}",
        found=repr(value)[:100],
        wanted=wanted,
        remedy="Mend plan.json, or make it again.",
    )
