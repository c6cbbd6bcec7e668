"""Distil a torch model into a smaller one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.base import StepOperator
from airflow_model_deploy.operators.execution import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_model_deploy.config import DistillationConfig, ModelCode, UserFunction


class DistillModelOperator(StepOperator):
    """Train a smaller model, the student, on the answers of a larger one, the teacher.

    :param model: the teacher: the result of the task that made it. (templated)
    :param student: factory of the student; None: ``student_model`` brings its own.
    :param student_model: the result of a task that made a torch model; it goes on learning from where it is. None:
        the student starts as its factory returns it. (templated)
    :param code: data, and the loss for learning from targets too; or a mapping of names to them.
    :param name: chooses from a mapping of code. (templated)
    :param distillation: what is learned from the teacher; None: soft targets at temperature 2. (templated)
    :param epochs: passes over the training data. (templated)
    :param batch_size: samples a training step. (templated)
    :param learning_rate: peak of the one-cycle learning rate. (templated)
    :param seed: every random choice follows from it. (templated)
    :param threads: threads to train with. (templated)
    """

    step = "distill"

    def __init__(
        self,
        *,
        model: Any,
        student: UserFunction | None = None,
        student_model: Any = None,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        distillation: DistillationConfig | None = None,
        epochs: int | str | None = None,
        batch_size: int | str | None = None,
        learning_rate: float | str | None = None,
        seed: int | str | None = None,
        threads: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {
            "distillation": asdict(distillation) if distillation else None,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "seed": seed,
            "threads": threads,
        }
        inputs = {"model": model, "student": student_model}
        super().__init__(inputs=inputs, code=code, name=name, spec=spec, **kwargs)
        self.student = student

    def full_inputs(self, context: Context) -> dict[str, Any]:
        """Leave out a student's artifact that was not given."""
        return {role: value for role, value in super().full_inputs(context).items() if value not in UNSET}

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Add the student's factory, which no template may change."""
        return super().full_spec(context) | {"student": self.student}

    def code_spec(self, code: ModelCode, context: Context) -> dict[str, Any]:
        """Add the loss."""
        return super().code_spec(code, context) | {"loss": code.loss}
