"""Build the servable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.base import StepOperator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_model_deploy.config import ModelCode


class BuildModelOperator(StepOperator):
    """Make the servable: model, session settings, and golden requests with the original and the built answers.

    :param model: the result of the task that made the ONNX model. (templated)
    :param baseline: the result of the task that trained or ingested it. (templated)
    :param code: data for the golden requests; None: random inputs by the model's signature.
    :param name: chooses from a mapping of code. (templated)
    :param golden_requests: at least 16. (templated)
    """

    step = "build"

    def __init__(
        self,
        *,
        model: Any,
        baseline: Any,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        golden_requests: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            inputs={"model": model, "baseline": baseline},
            code=code,
            name=name,
            spec={"golden_requests": golden_requests},
            **kwargs,
        )

    def code_spec(self, code: ModelCode, context: Context) -> dict[str, Any]:
        """Take the data only; quality is measured by the test."""
        return {"data": super().code_spec(code, context)["data"]}
