"""Prune a torch model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.base import RecoveringOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_model_deploy.config import DistillationConfig, ModelCode


class PruneModelOperator(RecoveringOperator):
    """Remove weights, channels or neurons, and let the author's training function recover the model.

    :param model: the result of the task that made the model. (templated)
    :param code: data, the training function for the recovery, and the loss for methods that take gradients;
        method ``none`` needs none of them.
    :param name: chooses from a mapping of code. (templated)
    :param method: ``channels``, ``ffn``, ``magnitude-mean``, ``magnitude-ratio``, ``gradient-mean``,
        ``gradient-ratio``, ``taylor-mean``, ``taylor-ratio``, ``wanda-ratio`` or ``none``. (templated)
    :param ratio: share of channels, neurons or weights that goes, between 0 and 1. (templated)
    :param scope: ``global``, ``tensor``, ``row`` or a pattern such as ``2:4``: over what weights are compared.
        (templated)
    :param norm: ``l1``, ``l2`` or ``taylor``: importance of a channel or neuron. (templated)
    :param round_to: kept channels or neurons are a multiple of it. (templated)
    :param gradient_reduction: ``sum_of_abs`` or ``abs_of_sum``: a gradient over several batches. (templated)
    :param score_samples: training samples that gradients or inputs are taken of. (templated)
    :param score_batch_size: samples a batch when they are taken. (templated)
    :param include: patterns of parameter names to prune. (templated)
    :param exclude: patterns of names to leave as they are. (templated)
    :param recovery_epochs: passes over the training data after pruning. (templated)
    :param recovery_batch_size: samples a step of the recovery by a loss or a teacher. (templated)
    :param recovery_learning_rate: its peak learning rate. (templated)
    :param distillation: what the recovery learns from the unpruned model, in place of the training function; None:
        nothing. (templated)
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
        gradient_reduction: str | None = None,
        score_samples: int | str | None = None,
        score_batch_size: int | str | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        recovery_epochs: int | str | None = None,
        recovery_batch_size: int | str | None = None,
        recovery_learning_rate: float | str | None = None,
        distillation: DistillationConfig | None = None,
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
            "gradient_reduction": gradient_reduction,
            "score_samples": score_samples,
            "score_batch_size": score_batch_size,
            "include": include,
            "exclude": exclude,
            "recovery_epochs": recovery_epochs,
            "recovery_batch_size": recovery_batch_size,
            "recovery_learning_rate": recovery_learning_rate,
            "distillation": asdict(distillation) if distillation else None,
            "seed": seed,
            "threads": threads,
        }
        super().__init__(inputs={"model": model}, code=code, name=name, spec=spec, **kwargs)
