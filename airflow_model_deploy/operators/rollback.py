"""Roll a service back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.base import EngineOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class RollbackOperator(EngineOperator):
    """Put the previous release of a service back, once it answers its golden requests.

    :param name: the service. (templated)
    :param target: ``host`` or ``docker``. (templated)
    :param root: folder of the host's services. (templated)
    :param docker: the engine, for target ``docker``. (templated)
    """

    step = "rollback"
    template_fields: Sequence[str] = (*EngineOperator.template_fields, "root")

    def __init__(
        self, *, name: str, target: str | None = None, root: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name, spec={"target": target}, **kwargs)
        self.root = root

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Add the service and its place."""
        task = context["ti"]
        return super().full_spec(context) | {
            "name": self.name,
            # The same for every try of this task: a second one only sees to what the first has begun.
            "attempt": "/".join((task.dag_id, task.run_id, task.task_id, str(task.map_index))),
            "root": execution.given(self.root) or execution.default_host_root(),
        }
