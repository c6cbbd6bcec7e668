"""The base of all operators but the rollout: one engine step as one task."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_model_deploy.operators import execution

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import ContainerConfig, DockerConfig, ModelCode
    from airflow_model_deploy.runners import Runner


class StepOperator(BaseOperator):
    """Run one engine step, on the worker or in a container, and return its result as a small dict.

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
    """

    step: ClassVar[str]
    template_fields: Sequence[str] = ("inputs", "spec", "name", "store", "python", "container")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "inputs": "json",
        "spec": "json",
        "container": "json",
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
        self._runner: Runner | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the step; fails for good where trying again can't help."""
        request = execution.make_request(
            self.step_name(),
            self.full_spec(context),
            self.full_inputs(context),
            store=self.store,
            context=context,
        )
        if self.container:
            self._runner = execution.container_runner(self.container, log=self.log)
        else:
            self._runner = execution.worker_runner(self.python, log=self.log)
        result = execution.run_request(self._runner, request, log=self.log, connections=self.connections())
        execution.announce(self.outlets, context, result)
        return result

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
    """A step that talks to a Docker engine or a registry.

    :param docker: the engine, and the connection of a registry. (templated)
    """

    template_fields: Sequence[str] = (*StepOperator.template_fields, "docker")

    def __init__(self, *, docker: DockerConfig | None = None, **kwargs: Any) -> None:
        if kwargs.get("container"):
            raise ValueError(
                f"container of {type(self).__name__}; found: a ContainerConfig; wanted: none: this step talks to"
                " engines and services from the worker"
            )
        super().__init__(**kwargs)
        self.docker = asdict(docker) if docker else {}

    def connections(self) -> dict[str, Any]:
        """Return the engine, where the target has one; only who pushes or pulls gets a registry's credentials."""
        from airflow_model_deploy.operators.engines import engine_fields

        return {"engine": engine_fields(self.docker)} if self.has_engine() else {}

    def has_engine(self) -> bool:
        """Whether the target is one that an engine builds for or runs."""
        return self.spec.get("target") not in (*execution.UNSET, "host")
