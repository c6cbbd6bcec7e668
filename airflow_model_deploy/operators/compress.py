"""Compress a model by the method that a run chooses."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.config import CompressionConfig
from airflow_model_deploy.operators.autocompress import budget_fields, rendered_budget
from airflow_model_deploy.operators.base import RecoveringOperator
from airflow_model_deploy.operators.execution import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import ModelCode

PLANNER = "auto"


class CompressModelOperator(RecoveringOperator):
    """Plan the compression under a budget where the method is ``auto``; else prune by the method named.

    A form's value may choose between the two. With ``auto`` the plan's number formats are left to
    QuantizeModelOperator, whose mode ``auto`` follows them.

    :param model: the result of the task that made the model. (templated)
    :param code: data, metric, and the training function or loss that the model recovers by.
    :param name: chooses from a mapping of code. (templated)
    :param compression: the method, and how far it goes. (templated)
    :param seed: every random choice follows from it. (templated)
    :param threads: threads to recover with. (templated)
    """

    template_fields: Sequence[str] = (*RecoveringOperator.template_fields, "method")

    def __init__(
        self,
        *,
        model: Any,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        compression: CompressionConfig | None = None,
        seed: int | str | None = None,
        threads: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = compression or CompressionConfig()
        spec = {
            "budget": budget_fields(chosen.budget),
            "objective": chosen.objective,
            "ratio": chosen.ratio,
            "recovery_epochs": chosen.recovery_epochs,
            "distillation": asdict(chosen.distillation) if chosen.distillation else None,
            "seed": seed,
            "threads": threads,
        }
        super().__init__(inputs={"model": model}, code=code, name=name, spec=spec, **kwargs)
        self.method = chosen.method

    def step_name(self) -> Literal["autocompress", "prune"]:
        """Plan, or prune."""
        return "autocompress" if self.method in (PLANNER, *UNSET) else "prune"

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Return the spec of whichever of the two steps runs."""
        spec = super().full_spec(context)
        if self.step_name() == "prune":
            return {k: v for k, v in spec.items() if k not in ("budget", "objective")} | {
                "method": self.method
            }
        spec.pop("ratio", None)
        return spec | {"budget": rendered_budget(spec.get("budget") or {}), "through": "structure"}
