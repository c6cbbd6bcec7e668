"""Links that Airflow shows beside a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ServiceLink(BaseOperatorLink):
    """The metadata page of the service that a rollout put up."""

    name = "Service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the service's URL from the task's result; "" where the task left none."""
        from airflow.providers.common.compat.sdk import XCom

        del operator
        result = XCom.get_value(ti_key=ti_key, key="return_value")
        return str(((result or {}).get("details") or {}).get("url", ""))
