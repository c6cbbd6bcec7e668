"""The contract of a runner: it starts `model-deploy run` somewhere, waits for its result file, and can end it."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.steps import StepRequest, StepResult


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Log(Protocol):
    """What a runner needs of a logger; Airflow's own and the standard library's both are one."""

    def info(self, event: str, *args: Any) -> Any:
        """Log a line."""

    def warning(self, event: str, *args: Any) -> Any:
        """Log a line that deserves attention."""

    def error(self, event: str, *args: Any) -> Any:
        """Log what went wrong."""


class Runner(ABC):
    """One run of one step in one place.

    `start` returns a handle of plain JSON by which `resume`, in another process too, finds the run again. A place
    whose runs end with the worker has nothing to find: its `resume` starts the request anew, which the store makes
    cheap.
    """

    @abstractmethod
    def start(
        self,
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
        connections: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Start a request. Credentials go by a private channel, never into arguments or files that others read."""

    @abstractmethod
    def wait(self) -> StepResult:
        """Wait for the end, passing on the step's log, and return its result, failed ones included."""

    def resume(
        self,
        handle: Mapping[str, Any],
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
        connections: Mapping[str, Any] | None = None,
    ) -> StepResult:
        """Find a started run again and wait for it; here, start anew: the run has ended with its task."""
        del handle
        self.start(request, store_options=store_options, connections=connections)
        return self.wait()

    @abstractmethod
    def cancel(self) -> None:
        """End the run and everything it started; returns when nothing of it is left."""


# What the command line says for good: failed, and its result could not be written; wrong usage.
PERMANENT_EXITS = (2, 3)


def first_line(
    request: StepRequest,
    store_options: Mapping[str, Any] | None,
    connections: Mapping[str, Any] | None,
) -> bytes:
    """Return the line that a step reads from its lifeline: the request, and what must leave no trace."""
    given = {
        "request": request.to_json(),
        "store_options": dict(store_options or {}),
        "connections": dict(connections or {}),
    }
    return json.dumps(given).encode() + b"\n"


def read_result(request: StepRequest, store_options: Mapping[str, Any] | None) -> StepResult | None:
    """Return what the step wrote; None where it was ended before it could."""
    from airflow_model_deploy.engine.artifacts import Store
    from airflow_model_deploy.engine.steps import StepResult

    value = Store(request.store, store_options).read_json(request.result) if request.result else None
    return None if value is None else StepResult.from_json(value)


def ended_without_result(request: StepRequest, message: str, *, permanent: bool) -> StepResult:
    """Return the failed result of a step that left none."""
    from airflow_model_deploy.engine.steps import StepResult

    error = {"type": "StepEnded", "message": message, "permanent": permanent}
    return StepResult(step=request.step, status="failed", error=error)


def pass_on(log: Log, line: str) -> None:
    """Log a step's line at the level that it starts with."""
    level, _, rest = line.partition(" ")
    tell = {"INFO": log.info, "WARNING": log.warning, "ERROR": log.error}.get(level)
    if tell is None:
        log.info("%s", line)
    else:
        tell("%s", rest)


def step_environment(cpus: float | None, more: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a step in a container: numeric libraries start as many threads as it has cores."""
    threads = {name: str(math.ceil(cpus)) for name in _THREADS} if cpus else {}
    own = {"PYTHONUNBUFFERED": "1", "HOME": "/tmp"}  # noqa: S108 - the container's own
    return {**own, **threads, **more}
