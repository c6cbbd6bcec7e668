"""The base of all operators but the rollout: one engine step as one task."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_model_deploy.operators import execution, placement
from airflow_model_deploy.operators.stores import store_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import (
        ContainerConfig,
        DockerConfig,
        KubernetesConfig,
        ModelCode,
        PodConfig,
    )
    from airflow_model_deploy.runners import Runner


class StepOperator(BaseOperator):
    """Run one engine step, on the worker, in a container or in a pod, and return its result as a small dict.

    The result holds ``artifact`` (uri and digest), ``metrics``, ``measurements``, ``details``, ``duration_s`` and
    ``cached``. Other operators take it as input. Every Asset among the outlets gets digest and metrics as its
    event's extra.

    :param inputs: results or references of the artifacts that the step works on, by role. (templated)
    :param spec: what the step shall do; validated after rendering. (templated)
    :param code: the author's code for the model, or a mapping of names to it, from which ``name`` chooses.
    :param name: the model's name. (templated)
    :param store: URL of the artifact store. (templated)
    :param python: interpreter with the engine. (templated)
    :param container: runs the step in a container; None: in a subprocess of the worker. (templated)
    :param pod: runs it in a pod of a cluster; not together with ``container``. (templated)
    :param store_conn_id: connection with the store's credentials and endpoint. (templated)
    """

    step: ClassVar[str]
    template_fields: Sequence[str] = (
        "inputs",
        "spec",
        "name",
        "store",
        "python",
        "container",
        "pod",
        "store_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "inputs": "json",
        "spec": "json",
        "container": "json",
        "pod": "json",
    }
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        inputs: Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        store: str | None = None,
        python: str | None = None,
        container: ContainerConfig | None = None,
        pod: PodConfig | None = None,
        store_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = dict(inputs or {})
        self.spec = dict(spec or {})
        self.code = code
        self.name = name
        self.store = store
        self.python = python
        self.container = asdict(container) if container else None
        self.pod = asdict(pod) if pod else None
        self.store_conn_id = store_conn_id
        self._runner: Runner | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the step; fails for good where trying again can't help."""
        options = store_options(self.store, self.store_conn_id)
        request = execution.make_request(
            self.step_name(),
            self.full_spec(context),
            self.full_inputs(context),
            store=self.store,
            context=context,
            store_options=options,
        )
        self._runner = runner = self._make_runner(context)
        with execution.deferred_to("resume_in_pod", request.to_json()):
            result = execution.run_request(
                runner, request, log=self.log, connections=self.connections(), store_options=options
            )
        execution.announce(self.outlets, context, result)
        return result

    def resume_in_pod(
        self, context: Context, event: dict[str, Any], request: dict[str, Any]
    ) -> dict[str, Any]:
        """Go on when the pod of a deferred task has ended, or has something to say."""
        options = store_options(request["store"], self.store_conn_id)
        self._runner = runner = self._make_runner(context)
        with execution.deferred_to("resume_in_pod", request):
            result = execution.resume_request(runner, event, request, log=self.log, store_options=options)
        execution.announce(self.outlets, context, result)
        return result

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; where the deferral itself failed or ran out of time, remove the pod that it waited for."""
        if self.pod and not hasattr(self, next_method):
            placement.pod_runner(self.pod, self, context, log=self.log).remove_left()
        return super().resume_execution(next_method, next_kwargs, context)

    def _make_runner(self, context: Context) -> Runner:
        if self.pod and self.container:
            execution.fail(
                f"container and pod of {self.task_id}; found: both; wanted: one of them, or none for the worker; leave"
                " the other out, in default_args too"
            )
        if self.pod:
            return placement.pod_runner(self.pod, self, context, log=self.log)
        if self.container:
            return placement.container_runner(self.container, log=self.log)
        return execution.worker_runner(self.python, log=self.log)

    def step_name(self) -> str:
        """Return the engine step to run."""
        return self.step

    def connections(self) -> dict[str, Any]:
        """Return what the step may reach, with credentials; it gets them privately."""
        return {}

    def full_inputs(self, context: Context) -> dict[str, Any]:
        """Return the rendered inputs by role."""
        del context
        return self.inputs

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Return the rendered spec with what the author's code adds; `None` leaves a field at its default."""
        values = {key: value for key, value in self.spec.items() if value not in execution.UNSET}
        if self.code is not None:
            values |= self.code_spec(execution.choose_code(self.code, self.name), context)
        return values

    def code_spec(self, code: ModelCode, context: Context) -> dict[str, Any]:
        """Return the fields that come from the author's code."""
        data = execution.render_data(code.data, self, context) if code.data else None
        return {"data": data, "metric": code.metric}

    def on_kill(self) -> None:
        """End the step and everything it started."""
        if self._runner is not None:
            self._runner.cancel()


class RecoveringOperator(StepOperator):
    """A step whose model may learn again: by the author's training function, or by the loss."""

    def code_spec(self, code: ModelCode, context: Context) -> dict[str, Any]:
        """Add the training function and the loss."""
        return super().code_spec(code, context) | {"fit": code.fit, "loss": code.loss}


class EngineOperator(StepOperator):
    """A step that talks to a Docker engine, a registry or a cluster.

    :param docker: the engine, and the connection of a registry. (templated)
    :param kubernetes: the cluster's connection and the namespace. (templated)
    """

    template_fields: Sequence[str] = (*StepOperator.template_fields, "docker", "kubernetes")

    def __init__(
        self, *, docker: DockerConfig | None = None, kubernetes: KubernetesConfig | None = None, **kwargs: Any
    ) -> None:
        for place in ("container", "pod"):
            if kwargs.get(place):
                raise ValueError(
                    f"{place} of {type(self).__name__}; found: a {place.capitalize()}Config; wanted: none: this step"
                    " talks to engines and services from the worker"
                )
        # Said here, so that default_args, which are for the computing steps, don't say otherwise.
        super().__init__(**{**kwargs, "container": None, "pod": None})
        self.docker = asdict(docker) if docker else {}
        self.kubernetes = asdict(kubernetes) if kubernetes else {}

    def connections(self) -> dict[str, Any]:
        """Return the cluster or the engine; only who pushes or pulls gets a registry's credentials."""
        from airflow_model_deploy.operators.clusters import cluster_connections
        from airflow_model_deploy.operators.engines import engine_fields

        if self.spec.get("target") == "kubernetes":
            return cluster_connections(self.kubernetes)
        return {"engine": engine_fields(self.docker)} if self.has_engine() else {}

    def has_engine(self) -> bool:
        """Whether the target is one that an engine builds for or runs."""
        return self.spec.get("target") not in (*execution.UNSET, "host")
