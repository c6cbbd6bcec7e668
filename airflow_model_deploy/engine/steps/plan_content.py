"""What plan.json says: the content of the file, and what of it a step's result tells."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression import PLAN_VERSION, LayerSensitivity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_model_deploy.engine.steps.autocompress import AutoCompressSpec
    from airflow_model_deploy.engine.steps.candidates import Built, Original


def plan_content(
    spec: AutoCompressSpec,
    name: str,
    original: Original,
    best: Built,
    built: Sequence[Built],
    layers: Sequence[Mapping[str, Any]],
    reason: str,
) -> dict[str, Any]:
    """Return the content of plan.json.

    Args:
        spec: what was asked for.
        name: the model's.
        original: the model before compression.
        best: the candidate that was chosen.
        built: all that were built.
        layers: what is known of each layer.
        reason: why this candidate, in words.
    """
    return {
        "schema_version": PLAN_VERSION,
        "model": name,
        "metric": original.metric.name,
        "higher_is_better": original.metric.higher_is_better,
        "loss_name": original.loss_name,
        "budget": asdict(spec.budget),
        "objective": spec.objective,
        "planning_samples": spec.planning_samples,
        **best.treatment.to_json(),
        "predicted": best.predicted,
        "verified": asdict(best.verified),
        "reason": reason,
        "candidates": [{**one.told(), "chosen": one is best} for one in built],
        "sensitivity": [
            {**layer, "chosen": best.treatment.formats.get(layer["layer"], "fp32")} for layer in layers
        ],
    }


def earlier_layers(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what an earlier plan knew of the layers; nothing where that was edited beyond recognition."""
    told = plan.get("sensitivity")
    if not isinstance(told, list):
        return []
    fields = LayerSensitivity.__dataclass_fields__
    return [
        {key: value for key, value in layer.items() if key in fields}
        for layer in told
        if isinstance(layer, dict) and set(fields) - {"bits"} <= set(layer)
    ]


def plan_metrics(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return an artifact's metrics."""
    verified = plan["verified"]
    told = {"metric": plan["metric"], "higher_is_better": plan["higher_is_better"]}
    if verified["quality"] is not None:
        told |= {name: verified[name] for name in ("quality", "baseline_quality", "drop")}
    return {**told, "model_bytes": verified["size_bytes"], "baseline_bytes": verified["baseline_size_bytes"]}


def cut_metrics(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a model whose structure alone is done, of those that its pruning measured."""
    kept = ("metric", "higher_is_better", "samples", "quality", "quality_ci", "parameters", "zero_fraction")
    return {name: told[name] for name in kept if name in told}


def plan_summary(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan without what grows with the model's layers: it travels in XCom."""
    counts: dict[str, int] = {}
    for wanted in plan["formats"].values():
        counts[wanted] = counts.get(wanted, 0) + 1
    return {k: v for k, v in plan.items() if k not in ("sensitivity", "formats")} | {"layers": counts}
