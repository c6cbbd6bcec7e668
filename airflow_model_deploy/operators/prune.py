"""Prune a torch model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.base import StepOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import ModelCode


class PruneModelOperator(StepOperator):
    """Remove weights or whole channels, and let the author's training function recover the model.

    :param model: the result of the task that made the model. (templated)
    :param code: data, and the training function for the recovery; method ``none`` needs neither.
    :param name: chooses from a mapping of code. (templated)
    :param method: ``channels``, ``magnitude-mean``, ``magnitude-ratio`` or ``none``. (templated)
    :param ratio: share of channels or weights that goes, between 0 and 1. (templated)
    :param scope: ``global`` or ``tensor``: over what weights are compared. (templated)
    :param norm: ``l1`` or ``l2``: importance of a channel. (templated)
    :param round_to: kept channels are a multiple of it. (templated)
    :param exclude: patterns of names to leave as they are. (templated)
    :param recovery_epochs: passes over the training data after pruning. (templated)
    :param seed: every random choice follows from it. (templated)
    :param threads: threads to recover with. (templated)
    """

    step = "prune"

    def __init__(
        self,
        *,
        model: Any,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        method: str | None = None,
        ratio: float | str | None = None,
        scope: str | None = None,
        norm: str | None = None,
        round_to: int | str | None = None,
        exclude: Sequence[str] | None = None,
        recovery_epochs: int | str | None = None,
        seed: int | str | None = None,
        threads: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {
            "method": method,
            "ratio": ratio,
            "scope": scope,
            "norm": norm,
            "round_to": round_to,
            "exclude": exclude,
            "recovery_epochs": recovery_epochs,
            "seed": seed,
            "threads": threads,
        }
        super().__init__(inputs={"model": model}, code=code, name=name, spec=spec, **kwargs)

    def code_spec(self, code: ModelCode, context: Context) -> dict[str, Any]:
        """Add the training function."""
        return super().code_spec(code, context) | {"fit": code.fit}
