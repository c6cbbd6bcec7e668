"""Roll a release out. The one module that pays for importing KubernetesPodOperator when a Dag is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

from airflow_model_deploy.links import ServiceLink
from airflow_model_deploy.operators import execution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.runners import Runner


class RolloutOperator(KubernetesPodOperator):
    """Put a blessed release into service on its target; what served before serves until the new one answers.

    For target ``host`` the rollout runs on the worker, which is the host. The arguments of
    KubernetesPodOperator are for target ``kubernetes``, which this version refuses by name.

    :param release: the result of the packaging. (templated)
    :param target: ``host``. (templated)
    :param root: folder of the host's services. (templated)
    :param host: the address to listen on. (templated)
    :param port: the port to listen on. (templated)
    :param server_python: interpreter that runs the server; None: the one that runs the step. (templated)
    :param store: URL of the artifact store. (templated)
    :param python: interpreter with the engine. (templated)
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
        self._runner: Runner | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Roll out and return the step's result: the service's URL, its revision, the one before."""
        if self.target != "host":
            execution.fail(
                f"RolloutOperator can't deploy to target {self.target!r}; found: {self.target!r}; wanted: 'host';"
                " this version deploys to hosts only"
            )
        spec = {
            "target": self.target,
            "root": execution.given(self.root) or execution.default_host_root(),
            "host": self.service_host,
            "port": self.port,
            "python": execution.given(self.server_python),
        }
        request = execution.make_request(
            "deploy", spec, {"release": self.release}, store=self.store, context=context
        )
        self._runner = execution.worker_runner(self.python, log=self.log)
        result = execution.run_request(self._runner, request, log=self.log)
        execution.announce(self.outlets, context, result)
        return result

    def on_kill(self) -> None:
        """End the rollout; what served before goes on serving."""
        if self._runner is not None:
            self._runner.cancel()
        else:
            super().on_kill()
