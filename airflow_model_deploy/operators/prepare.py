"""Prepare the release plan."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.base import StepOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import KubernetesConfig


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
    :param kubernetes: how the service runs in the cluster and how releases take over, for target ``kubernetes``.
        (templated)
    """

    step = "prepare"
    template_fields: Sequence[str] = (*StepOperator.template_fields, "kubernetes")

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
        kubernetes: KubernetesConfig | None = None,
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
        self.kubernetes = asdict(kubernetes) if kubernetes else {}

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Add the cluster's part of the plan, for the target that has one."""
        from airflow_model_deploy.operators.clusters import plan_fields

        spec = super().full_spec(context)
        in_cluster = spec.get("target") == "kubernetes"
        return spec | plan_fields(self.kubernetes) if in_cluster else spec
