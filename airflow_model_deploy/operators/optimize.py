"""Optimize an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.base import StepOperator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.config import ModelCode


class OptimizeModelOperator(StepOperator):
    """Choose graph optimizations and session settings for the worker's kind of CPU, by measurement.

    :param model: the result of the task that made the model. (templated)
    :param code: data to measure with; None: random inputs by the model's signature.
    :param name: chooses from a mapping of code. (templated)
    :param threads: threads of one session. (templated)
    """

    step = "optimize"

    def __init__(
        self,
        *,
        model: Any,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        threads: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs={"model": model}, code=code, name=name, spec={"threads": threads}, **kwargs)
