"""Quantize a model to 8 or 4 bits."""

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
    :param mode: ``auto``, ``static``, ``dynamic``, ``weight-only``, ``mixed``, ``plan`` or ``none``. (templated)
    :param bits: 8 or 4, for ``weight-only``. (templated)
    :param formats: a format for each node name or shell pattern, for ``mixed``. (templated)
    :param per_channel: a scale for each output channel. (templated)
    :param calibration_samples: taken from the training split. (templated)
    :param include_nodes: names or shell patterns of the graph nodes to quantize. (templated)
    :param include_ops: operators to quantize, such as ``MatMul``. (templated)
    :param exclude_nodes: names or shell patterns of graph nodes to leave in fp32. (templated)
    """

    step = "quantize"

    def __init__(
        self,
        *,
        model: Any,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        mode: str | None = None,
        bits: int | str | None = None,
        formats: Mapping[str, str] | None = None,
        per_channel: bool | str | None = None,
        calibration_samples: int | str | None = None,
        include_nodes: Sequence[str] | None = None,
        include_ops: Sequence[str] | None = None,
        exclude_nodes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {
            "mode": mode,
            "bits": bits,
            "formats": formats,
            "per_channel": per_channel,
            "calibration_samples": calibration_samples,
            "include_nodes": include_nodes,
            "include_ops": include_ops,
            "exclude_nodes": exclude_nodes,
        }
        super().__init__(inputs={"model": model}, code=code, name=name, spec=spec, **kwargs)
