"""Roll a release out. The one module that pays for importing KubernetesPodOperator when a Dag is parsed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

from airflow_model_deploy.links import ServiceLink
from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.engines import docker_connections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import DockerConfig
    from airflow_model_deploy.runners import Runner

_TARGETS = ("host", "docker")


class RolloutOperator(KubernetesPodOperator):
    """Put a blessed release into service on its target; what served before serves until the new one answers.

    For targets ``host`` and ``docker`` the rollout runs on the worker, which is the host, or reaches the engine.
    The arguments of KubernetesPodOperator are for target ``kubernetes``, which this version refuses by name.

    :param release: the result of the packaging. (templated)
    :param target: ``host`` or ``docker``. (templated)
    :param root: folder of the host's services. (templated)
    :param host: the address to listen on. (templated)
    :param port: the port to listen on. (templated)
    :param server_python: interpreter that runs the server; None: the one that runs the step. (templated)
    :param store: URL of the artifact store. (templated)
    :param python: interpreter with the engine. (templated)
    :param docker: the engine that runs the service, for target ``docker``. (templated)
    """

    template_fields: Sequence[str] = (
        "release",
        "target",
        "root",
        "service_host",
        "port",
        "server_python",
        "store",
        "python",
        "docker",
        *KubernetesPodOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **KubernetesPodOperator.template_fields_renderers,
        "release": "json",
    }
    operator_extra_links = (ServiceLink(),)
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
        python: str | None = None,
        docker: DockerConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # KubernetesPodOperator means its pod's sidecar by this; the result here is the step's own.
        self.do_xcom_push = True
        self.release = release
        self.target = target
        self.root = root
        self.service_host = host
        self.port = port
        self.server_python = server_python
        self.store = store
        self.python = python
        self.docker = asdict(docker) if docker else {}
        self._runner: Runner | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Roll out and return the step's result: the service's URL, its revision, the one before."""
        if self.target not in _TARGETS:
            execution.fail(
                f"RolloutOperator can't deploy to target {self.target!r}; found: {self.target!r}; wanted: 'host' or"
                " 'docker'; this version deploys to hosts and Docker engines only"
            )
        on_host = self.target == "host"
        spec = {
            "target": self.target,
            "root": (execution.given(self.root) or execution.default_host_root()) if on_host else None,
            "host": self.service_host,
            "port": self.port,
            "python": execution.given(self.server_python),
        }
        request = execution.make_request(
            "deploy", spec, {"release": self.release}, store=self.store, context=context
        )
        self._runner = execution.worker_runner(self.python, log=self.log)
        result = execution.run_request(
            self._runner,
            request,
            log=self.log,
            connections={} if on_host else docker_connections(self.docker),
        )
        execution.announce(self.outlets, context, result)
        return result

    def on_kill(self) -> None:
        """End the rollout; what served before goes on serving."""
        if self._runner is not None:
            self._runner.cancel()
        else:
            super().on_kill()
