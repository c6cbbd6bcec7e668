"""Runs one engine step for an operator: request, runner, result, asset events. The only place that does."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_model_deploy.config import DataSource, ModelCode
from airflow_model_deploy.version_compat import read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_model_deploy.engine.steps import StepResult
    from airflow_model_deploy.runners import Runner
    from airflow_model_deploy.runners.base import Log


# What an optional argument is when it was not given: also as a template renders it.
UNSET = (None, "", "None")


def choose_code(code: ModelCode | Mapping[str, ModelCode], name: str) -> ModelCode:
    """Return the author's code for a model; whoever fills the form chooses by name only."""
    if isinstance(code, ModelCode):
        return code
    if name not in code:
        fail(
            f"no model {name!r} is listed; found: {name!r}; wanted: one of {sorted(code)}; choose another name"
        )
    return code[name]


def render_data(source: DataSource, operator: Any, context: Mapping[str, Any]) -> DataSource:
    """Render templates in a data source's options, files and version; never in its import paths."""

    def rendered(value: Any) -> Any:
        return operator.render_template(value, context)

    return replace(
        source,
        loader=replace(source.loader, options=rendered(source.loader.options)),
        files=tuple(rendered(list(source.files))),
        version=rendered(source.version),
    )


def make_request(
    step: str,
    spec: Mapping[str, Any],
    inputs: Mapping[str, Any],
    *,
    store: str | None,
    context: Mapping[str, Any],
    store_options: Mapping[str, Any] | None = None,
) -> Any:
    """Build the request: validate the spec here, so that what is wrong fails before anything starts."""
    from airflow_model_deploy.engine.artifacts import Reference, Store
    from airflow_model_deploy.engine.errors import ModelDeployError
    from airflow_model_deploy.engine.steps import StepRequest, get_step, parse_spec, publish_code

    values = {name: _plain(value) for name, value in spec.items()}
    url = given(store) or default_store()
    try:
        parsed = parse_spec(get_step(step).spec, values, step=step)
        opened = Store(url, store_options)
        return StepRequest(
            step=step,
            spec=values,
            inputs={role: Reference.from_json(value) for role, value in inputs.items()},
            store=opened.url,
            code=publish_code(opened, parsed),
            result=_result_name(context),
        )
    except ModelDeployError as error:
        if error.permanent:
            fail(str(error))
        raise


def run_request(
    runner: Runner,
    request: Any,
    *,
    log: Log,
    connections: Mapping[str, Any] | None = None,
    store_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a request to its end; failed ones raise, and what can't get better is not retried."""

    def run() -> StepResult:
        runner.start(request, connections=connections, store_options=store_options)
        return runner.wait()

    return _finish(run, log=log)


def resume_request(
    runner: Runner,
    event: Mapping[str, Any],
    request: Mapping[str, Any],
    *,
    log: Log,
    store_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Go on with a request whose task was deferred, from the trigger's event, to its end."""
    from airflow_model_deploy.engine.steps import StepRequest

    parsed = StepRequest.from_json(dict(request))
    return _finish(lambda: runner.resume(event, parsed, store_options=store_options), log=log)


@contextmanager
def deferred_to(method: str, request: Mapping[str, Any]) -> Iterator[None]:
    """Raise a runner's deferral as the operator's own: `method` goes on with the request, which holds no secret."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    try:
        yield
    except TaskDeferred as deferred:
        raise TaskDeferred(
            trigger=deferred.trigger,
            method_name=method,
            kwargs={"request": dict(request)},
            timeout=deferred.timeout,
        ) from None


def _finish(run: Callable[[], StepResult], *, log: Log) -> dict[str, Any]:
    from airflow.providers.common.compat.sdk import AirflowException

    from airflow_model_deploy.engine.errors import ModelDeployError

    try:
        result = run()
    except ModelDeployError as refusal:
        if refusal.permanent:
            fail(str(refusal))
        raise
    if result.status == "failed":
        error = result.error or {}
        message = f"step {result.step} failed: {error.get('message')}"
        if error.get("permanent"):
            fail(message)
        raise AirflowException(message)
    log.info(
        "%s: %s%s",
        result.step,
        result.artifact.digest if result.artifact else "done",
        " (found, not computed)" if result.cached else "",
    )
    return result.to_json()


def worker_runner(python: str | None, *, log: Log) -> Runner:
    """Return the runner on the worker, with the interpreter that a task names or the default one."""
    from airflow_model_deploy.runners import WorkerRunner

    return WorkerRunner(python=given(python) or default_python(), log=log)


def given(value: Any) -> Any:
    """Return an argument, None where it was not given: also as a template renders that."""
    return None if value in UNSET else value


def announce(outlets: Sequence[Any], context: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Put digest and metrics on the event of every Asset among a task's outlets."""
    from airflow.sdk import Asset

    artifact = result.get("artifact")
    if not artifact:  # an event that names no artifact would be taken for one that does
        return
    extra = {
        "step": result["step"],
        "name": result.get("name"),
        "digest": artifact["digest"],
        "uri": artifact["uri"],
        "metrics": result.get("metrics") or {},
    }
    for outlet in outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra = extra


def default_store() -> str:
    """Return the store that `[model_deploy] store` names, or the one below AIRFLOW_HOME."""
    return read_config("model_deploy", "store") or f"file://{_home() / 'store'}"


def default_host_root() -> str:
    """Return the folder that `[model_deploy] host_root` names, or the one below AIRFLOW_HOME."""
    return read_config("model_deploy", "host_root") or str(_home() / "host")


def default_registry() -> str | None:
    """Return the registry that `[model_deploy] registry` names."""
    return read_config("model_deploy", "registry") or None


def default_base_image() -> str | None:
    """Return the image that `[model_deploy] base_image` names; None: the step's own default."""
    return read_config("model_deploy", "base_image") or None


def default_python() -> str | None:
    """Return the interpreter that `[model_deploy] python` names; None: Airflow's own."""
    return read_config("model_deploy", "python") or None


def fail(message: str) -> None:
    """Fail the task for good."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    raise AirflowFailException(message)


def _home() -> Path:
    return Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "model_deploy"


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _result_name(context: Mapping[str, Any]) -> str:
    task = context["ti"]
    parts = (task.dag_id, task.run_id, task.task_id, str(task.map_index), str(task.try_number))
    # The random part keeps a killed run from being taken for this one.
    return (
        "runs/" + "/".join(re.sub(r"[^A-Za-z0-9._-]", "_", part) for part in parts) + f"/{uuid4().hex}.json"
    )
