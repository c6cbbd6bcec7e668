"""Roll a service back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.links import DeploymentLink, ReportLink, ServiceLink
from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.attempts import attempt_of
from airflow_model_deploy.operators.driver_pod import DriverPodOperator
from airflow_model_deploy.operators.engines import engine_fields
from airflow_model_deploy.operators.stores import store_options
from airflow_model_deploy.operators.verdict import Driven

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import DockerConfig, KubernetesConfig
    from airflow_model_deploy.runners import Runner


class RollbackOperator(DriverPodOperator):
    """Put the previous release of a service back, once it answers its golden requests.

    :param name: the service. (templated)
    :param target: ``host``, ``docker`` or ``kubernetes``. (templated)
    :param root: folder of the host's services. (templated)
    :param store: URL of the artifact store, where results of steps on the worker are written. (templated)
    :param store_conn_id: connection with the store's credentials. (templated)
    :param python: interpreter with the engine. (templated)
    :param docker: the engine, for target ``docker``. (templated)
    :param kubernetes: the cluster's namespace, its connection and the driver, for target ``kubernetes``. (templated)
    """

    template_fields: Sequence[str] = (
        "service",
        "target",
        "root",
        "store",
        "store_conn_id",
        "python",
        "docker",
        *DriverPodOperator.template_fields,
    )
    operator_extra_links = (ServiceLink(), DeploymentLink(), ReportLink())
    ui_color = "#f6e3d4"

    def __init__(
        self,
        *,
        name: str,
        target: str | None = None,
        root: str | None = None,
        store: str | None = None,
        store_conn_id: str | None = None,
        python: str | None = None,
        docker: DockerConfig | None = None,
        kubernetes: KubernetesConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(kubernetes=kubernetes, **kwargs)
        # `name` is that of KubernetesPodOperator's pod.
        self.service = name
        self.target = target
        self.root = root
        self.store = store
        self.store_conn_id = store_conn_id
        self.python = python
        self.docker = asdict(docker) if docker else {}
        self._runner: Runner | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Roll back and return the step's result; fails for good where trying again can't help."""
        if self.target == "kubernetes":  # first: a way back in a cluster must not depend on the store
            self.adopt()
            return self.drive(self.sent(context), context)
        options = store_options(self.store, self.store_conn_id)
        request = execution.make_request(
            "rollback", self.full_spec(context), {}, store=self.store, context=context, store_options=options
        )
        self._runner = execution.worker_runner(self.python, log=self.log)
        result = execution.run_request(
            self._runner, request, log=self.log, connections=self.connections(), store_options=options
        )
        execution.announce(self.outlets, context, result)
        return result

    def sent(self, context: Context) -> Driven:
        """Return it: all of it is known here."""
        return Driven("rollback", self.service, str(self.namespace), attempt_of(context, each_try=False))

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Return the rendered spec: the service, its place, and the name of this rollback."""
        spec = {
            "name": self.service,
            # The same for every try of this task: a second one only sees to what the first has begun.
            "attempt": attempt_of(context, each_try=False),
            "root": execution.given(self.root) or execution.default_host_root(),
        }
        target = execution.given(self.target)
        return spec | ({"target": target} if target else {})

    def connections(self) -> dict[str, Any]:
        """Return the engine, for target ``docker``."""
        return {"engine": engine_fields(self.docker)} if self.target == "docker" else {}

    def on_kill(self) -> None:
        """End the rollback; what served before goes on serving."""
        if self._runner is not None:
            self._runner.cancel()
        else:
            super().on_kill()
