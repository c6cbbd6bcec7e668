"""Watch a service for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.links import ReportLink
from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.base import EngineOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


VERDICTS = ("healthy", "degraded", "failing", "inconclusive")


class MonitorReleaseOperator(EngineOperator):
    """Watch a deployed release for a window and give a verdict: healthy, degraded, failing or inconclusive.

    :param release: the result of the packaging. (templated)
    :param target: ``host``, ``docker`` or ``kubernetes``. (templated)
    :param root: folder of the host's services. (templated)
    :param docker: the engine, for target ``docker``. (templated)
    :param kubernetes: connection and namespace, for target ``kubernetes``, which is watched from the worker through
        the API server. (templated)
    :param window_s: how long to watch, in seconds. (templated)
    :param interval_s: from one probe to the next, in seconds. (templated)
    :param fail_on: verdicts that fail the task (``failing``, ``degraded``, ``inconclusive``).
    """

    step = "monitor"
    operator_extra_links = (ReportLink(),)
    template_fields: Sequence[str] = (*EngineOperator.template_fields, "root")

    def __init__(
        self,
        *,
        release: Any,
        target: str | None = None,
        root: str | None = None,
        window_s: float | str | None = None,
        interval_s: float | str | None = None,
        fail_on: Sequence[str] = ("failing",),
        **kwargs: Any,
    ) -> None:
        spec = {"target": target, "window_s": window_s, "interval_s": interval_s}
        super().__init__(inputs={"release": release}, spec=spec, **kwargs)
        self.root = root
        self.fail_on = (fail_on,) if isinstance(fail_on, str) else tuple(fail_on)
        if unknown := set(self.fail_on) - set(VERDICTS):
            raise ValueError(f"fail_on; found: {sorted(unknown)}; wanted: any of {VERDICTS}")

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Add the service's place."""
        from airflow_model_deploy.operators.clusters import namespace_of

        spec = super().full_spec(context)
        if spec.get("target") == "kubernetes":
            return spec | {"namespace": namespace_of(self.kubernetes)}
        return spec | {"root": execution.given(self.root) or execution.default_host_root()}

    def execute(self, context: Context) -> dict[str, Any]:
        """Watch; a verdict that is listed in `fail_on` fails the task for good."""
        result = super().execute(context)
        verdict = result["details"]["verdict"]
        if verdict["status"] in self.fail_on:
            execution.fail(f"the service is {verdict['status']}: {'; '.join(verdict['reasons'])}")
        return result
