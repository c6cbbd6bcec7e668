"""Links that Airflow shows beside a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ServiceLink(BaseOperatorLink):
    """The metadata page of the service that a rollout put up."""

    name = "Service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the service's URL from the task's result; "" where there is none, or none outside its cluster."""
        del operator
        url = str(_details(ti_key).get("url", ""))
        return "" if (urlsplit(url).hostname or "").endswith(".svc") else url


class DeploymentLink(BaseOperatorLink):
    """Where a person looks at the service's objects in the cluster: the cluster's own UI, by a setting."""

    name = "Deployment"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return [model_deploy] deployment_url for the service; "" without the setting, or outside a cluster."""
        del operator
        details = _details(ti_key)
        namespace, name = details.get("namespace"), details.get("name")
        if not (namespace and name):
            return ""
        return _filled("deployment_url", namespace=str(namespace), name=str(name))


class ReportLink(BaseOperatorLink):
    """The report of the task's run, where who writes it keeps it, by a setting."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return [model_deploy] report_url for the run; "" without the setting."""
        del operator
        # What stands in a run's id (a colon, a plus) would mean something else in a URL.
        return _filled("report_url", dag_id=quote(ti_key.dag_id, ""), run_id=quote(ti_key.run_id, ""))


def _filled(option: str, **values: str) -> str:
    """Return a setting's URL with its names in braces replaced; "" without the setting."""
    from airflow_model_deploy.version_compat import read_config

    url = read_config("model_deploy", option) or ""
    for name, value in values.items():
        url = url.replace(f"{{{name}}}", value)
    return url


def _details(ti_key: TaskInstanceKey) -> dict[str, Any]:
    from airflow.providers.common.compat.sdk import XCom

    result = XCom.get_value(ti_key=ti_key, key="return_value")
    return dict((result or {}).get("details") or {})
