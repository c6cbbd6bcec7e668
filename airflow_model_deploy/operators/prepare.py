"""Prepare the release plan."""

from __future__ import annotations

from typing import Any

from airflow_model_deploy.operators.base import StepOperator


class PrepareReleaseOperator(StepOperator):
    """Write the release plan: target, objectives, and the resources that the test measured.

    :param servable: the result of the build. (templated)
    :param evaluation: the result of the test. (templated)
    :param target: ``host``, ``docker`` or ``kubernetes``. (templated)
    :param latency_ms: bound of a request. (templated)
    :param latency_share: share of requests within the bound. (templated)
    :param max_error_share: share of requests that may fail. (templated)
    :param min_requests: fewer observations decide nothing. (templated)
    :param memory_headroom: the memory limit over the measured peak. (templated)
    """

    step = "prepare"

    def __init__(
        self,
        *,
        servable: Any,
        evaluation: Any,
        target: str | None = None,
        latency_ms: float | str | None = None,
        latency_share: float | str | None = None,
        max_error_share: float | str | None = None,
        min_requests: int | str | None = None,
        memory_headroom: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {
            "target": target,
            "latency_ms": latency_ms,
            "latency_share": latency_share,
            "max_error_share": max_error_share,
            "min_requests": min_requests,
            "memory_headroom": memory_headroom,
        }
        super().__init__(inputs={"servable": servable, "evaluation": evaluation}, spec=spec, **kwargs)
