"""Test the servable against its gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.config import GateConfig, ModelCode
from airflow_model_deploy.operators.base import StepOperator

if TYPE_CHECKING:
    from collections.abc import Mapping


class EvaluateModelOperator(StepOperator):
    """Run the servable in its real server and hold it to its gates; a gate that isn't kept fails the task.

    :param servable: the result of the build. (templated)
    :param baseline: the result of the task that trained or ingested the model. (templated)
    :param code: data and metric.
    :param name: chooses from a mapping of code. (templated)
    :param gates: what has to be kept. (templated)
    """

    step = "test"

    def __init__(
        self,
        *,
        servable: Any,
        baseline: Any,
        code: ModelCode | Mapping[str, ModelCode],
        name: str = "",
        gates: GateConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            inputs={"servable": servable, "baseline": baseline},
            code=code,
            name=name,
            spec=dict(vars(gates or GateConfig())),
            **kwargs,
        )
