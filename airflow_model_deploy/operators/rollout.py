"""Roll a release out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_model_deploy.links import DeploymentLink, ReportLink, ServiceLink
from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.attempts import attempt_of
from airflow_model_deploy.operators.driver_pod import DriverPodOperator
from airflow_model_deploy.operators.engines import docker_connections
from airflow_model_deploy.operators.stores import store_options
from airflow_model_deploy.operators.verdict import Driven

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import DockerConfig, KubernetesConfig
    from airflow_model_deploy.runners import Runner

_TARGETS = ("host", "docker", "kubernetes")


class RolloutOperator(DriverPodOperator):
    """Put a blessed release into service on its target; what served before serves until the new one answers.

    For targets ``host`` and ``docker`` the rollout runs on the worker, which is the host, or reaches the engine. For
    ``kubernetes`` it runs in the cluster, in a pod; the arguments of KubernetesPodOperator are that pod's.

    :param release: the result of the packaging. (templated)
    :param target: ``host``, ``docker`` or ``kubernetes``. (templated)
    :param root: folder of the host's services. (templated)
    :param host: the address to listen on, for targets ``host`` and ``docker``. (templated)
    :param port: the port to listen on, likewise. (templated)
    :param server_python: interpreter that runs the server; None: the one that runs the step. (templated)
    :param store: URL of the artifact store. (templated)
    :param store_conn_id: connection with the store's credentials. (templated)
    :param python: interpreter with the engine. (templated)
    :param docker: the engine that runs the service, for target ``docker``. (templated)
    :param kubernetes: the cluster's namespace, its connection and the driver, for target ``kubernetes``. (templated)
    """

    template_fields: Sequence[str] = (
        "release",
        "target",
        "root",
        "service_host",
        "port",
        "server_python",
        "store",
        "store_conn_id",
        "python",
        "docker",
        *DriverPodOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DriverPodOperator.template_fields_renderers,
        "release": "json",
    }
    operator_extra_links = (ServiceLink(), DeploymentLink(), ReportLink())
    ui_color = "#d7efdc"

    def __init__(
        self,
        *,
        release: Any,
        target: str = "host",
        root: str | None = None,
        host: str = "127.0.0.1",
        port: int | str = 8500,
        server_python: str | None = None,
        store: str | None = None,
        store_conn_id: str | None = None,
        python: str | None = None,
        docker: DockerConfig | None = None,
        kubernetes: KubernetesConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(kubernetes=kubernetes, **kwargs)
        self.release = release
        self.target = target
        self.root = root
        self.service_host = host
        self.port = port
        self.server_python = server_python
        self.store = store
        self.store_conn_id = store_conn_id
        self.python = python
        self.docker = asdict(docker) if docker else {}
        self._runner: Runner | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Roll out and return the step's result: the service's URL, its revision, the one before."""
        if self.target not in _TARGETS:
            execution.fail(
                f"RolloutOperator can't deploy to target {self.target!r}; found: {self.target!r}; wanted: one of"
                f" {_TARGETS}; correct it"
            )
        if self.target == "kubernetes":
            return self.drive(self._delivered(context), context)
        return self._on_worker(context)

    def release_of(self) -> Any:
        """Return the release."""
        return self.release

    def sent(self, context: Context) -> Driven | None:
        """Return it by the release's name, which is the service's."""
        name = self.release.get("name") if isinstance(self.release, dict) else None
        return (
            Driven("deploy", name, str(self.namespace), attempt_of(context, each_try=True)) if name else None
        )

    def _delivered(self, context: Context) -> Driven:
        """Put the release into the cluster, where the driver reads it: it reaches no store."""
        from airflow_model_deploy.engine.artifacts import Reference
        from airflow_model_deploy.engine.errors import ModelDeployError
        from airflow_model_deploy.engine.steps.delivery import deliver_release

        self.adopt()
        namespace = str(self.namespace)
        try:
            found = deliver_release(
                execution.given(self.store) or execution.default_store(),
                store_options(self.store, self.store_conn_id),
                Reference.from_json(self.release).to_json(),
                self.cluster_fields(),
                namespace,
            )
        except ModelDeployError as error:
            if error.permanent:
                execution.fail(str(error))
            raise
        self.log.info("%s: revision %s is delivered to %s", found["name"], found["revision"], namespace)
        attempt = attempt_of(context, each_try=True)
        return Driven("deploy", found["name"], namespace, attempt, found["revision"], found["release"])

    def _on_worker(self, context: Context) -> dict[str, Any]:
        on_host = self.target == "host"
        spec = {
            "target": self.target,
            "root": (execution.given(self.root) or execution.default_host_root()) if on_host else None,
            "host": self.service_host,
            "port": self.port,
            "python": execution.given(self.server_python),
        }
        options = store_options(self.store, self.store_conn_id)
        request = execution.make_request(
            "deploy",
            spec,
            {"release": self.release},
            store=self.store,
            context=context,
            store_options=options,
        )
        self._runner = execution.worker_runner(self.python, log=self.log)
        result = execution.run_request(
            self._runner,
            request,
            log=self.log,
            connections={} if on_host else docker_connections(self.docker),
            store_options=options,
        )
        execution.announce(self.outlets, context, result)
        return result

    def on_kill(self) -> None:
        """End the rollout; what served before goes on serving."""
        if self._runner is not None:
            self._runner.cancel()
        else:
            super().on_kill()
