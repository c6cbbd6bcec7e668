"""Compress a model as far as a budget allows."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.base import RecoveringOperator
from airflow_model_deploy.operators.execution import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import Budget, DistillationConfig, ModelCode


class AutoCompressModelOperator(RecoveringOperator):
    """Find the smallest and fastest form of a model that keeps a budget: measured, planned, built and verified.

    Structure is cut as far as its recovery keeps the quality; then each layer gets the number format that its
    measured sensitivity allows. The outcome is the compressed ONNX model with ``plan.json`` beside it.

    :param model: the result of the task that made the model. (templated)
    :param code: data and metric; with a training function or a loss the structure may be cut as well.
    :param name: chooses from a mapping of code. (templated)
    :param budget: what has to be kept; a number is the largest loss of quality. (templated)
    :param objective: what is made small: ``balanced``, ``latency`` or ``size``. (templated)
    :param structure: what may be cut: ``auto``, ``channels``, ``ffn`` or ``none``. (templated)
    :param ratios: shares of channels or neurons that are tried. (templated)
    :param recovery_epochs: passes over the training data after each cut; 0: nothing is cut. (templated)
    :param distillation: what a cut model learns from the original in its recovery, in place of the training function;
        None: nothing. (templated)
    :param formats: number formats that layers may have; None: what suits the model. (templated)
    :param planning_samples: training samples that the layers' sensitivity is measured on. (templated)
    :param plan: an edited ``plan.json``, as its content or its path or URL: nothing is searched, it is built and
        verified. (templated)
    :param through: ``quantization``: the outcome is the finished graph; ``structure``: the cut model with the plan
        beside it, for QuantizeModelOperator in mode ``plan`` to finish. (templated)
    :param seed: every random choice follows from it. (templated)
    :param threads: threads to recover with. (templated)
    """

    step = "autocompress"

    def __init__(
        self,
        *,
        model: Any,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        budget: Budget | float | str | None = None,
        objective: str | None = None,
        structure: str | None = None,
        ratios: Sequence[float] | str | None = None,
        recovery_epochs: int | str | None = None,
        distillation: DistillationConfig | None = None,
        formats: Sequence[str] | None = None,
        planning_samples: int | str | None = None,
        plan: Mapping[str, Any] | str | None = None,
        through: str | None = None,
        seed: int | str | None = None,
        threads: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {
            "budget": budget_fields(budget),
            "objective": objective,
            "structure": structure,
            "ratios": ratios,
            "recovery_epochs": recovery_epochs,
            "distillation": asdict(distillation) if distillation else None,
            "formats": formats,
            "planning_samples": planning_samples,
            "plan": plan,
            "through": through,
            "seed": seed,
            "threads": threads,
        }
        super().__init__(inputs={"model": model}, code=code, name=name, spec=spec, **kwargs)

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Return the rendered spec; the budget without what was not given, the plan as its content."""
        spec = super().full_spec(context)
        if "budget" in spec:
            spec["budget"] = rendered_budget(spec["budget"])
        if isinstance(spec.get("plan"), str):
            spec["plan"] = read_plan(spec["plan"])
        return spec


def budget_fields(budget: Budget | float | str | None) -> dict[str, Any] | None:
    """Return a budget as the template fields hold it: a number alone is the largest loss of quality."""
    if budget is None:
        return None
    return {"max_drop": budget} if isinstance(budget, (int, float, str)) else asdict(budget)


def rendered_budget(budget: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rendered budget as the step takes it; what was not given is no limit."""
    given = {name: None if value in UNSET else value for name, value in budget.items()}
    size = given.pop("max_size_mb", None)
    try:
        return given if size is None else given | {"max_size_bytes": round(float(size) * 1e6)}
    except (TypeError, ValueError):
        execution.fail(f"the budget's max_size_mb is no number; found: {size!r}; wanted: MB of 10^6 bytes")
        raise


def read_plan(place: str) -> dict[str, Any]:
    """Read a plan file from a path or URL."""
    import fsspec

    try:
        with fsspec.open(place, "r", encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError) as error:
        execution.fail(
            f"the plan {place} can't be read; found: {type(error).__name__}: {error}; wanted: a plan.json that an"
            " earlier run has written; correct the path"
        )
        raise
    if not isinstance(found, dict):
        execution.fail(
            f"the plan {place} holds no plan; found: {type(found).__name__}; wanted: a JSON object"
        )
    return dict(found)
