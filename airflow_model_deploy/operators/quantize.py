"""Quantize a model to int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.base import StepOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_model_deploy.config import ModelCode


class QuantizeModelOperator(StepOperator):
    """Export to ONNX and quantize.

    :param model: the result of the task that made the model. (templated)
    :param code: data to calibrate and to measure with; ``static`` needs it.
    :param name: chooses from a mapping of code. (templated)
    :param mode: ``static``, ``dynamic`` or ``none``. (templated)
    :param per_channel: a scale for each output channel. (templated)
    :param calibration_samples: taken from the training split. (templated)
    :param exclude_nodes: names of graph nodes to leave in fp32. (templated)
    """

    step = "quantize"

    def __init__(
        self,
        *,
        model: Any,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        mode: str | None = None,
        per_channel: bool | str | None = None,
        calibration_samples: int | str | None = None,
        exclude_nodes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {
            "mode": mode,
            "per_channel": per_channel,
            "calibration_samples": calibration_samples,
            "exclude_nodes": exclude_nodes,
        }
        super().__init__(inputs={"model": model}, code=code, name=name, spec=spec, **kwargs)
