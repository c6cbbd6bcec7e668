"""The contract of a runner: it starts `model-deploy run` somewhere, waits for its result file, and can end it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.steps import StepRequest, StepResult


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
        self, request: StepRequest, *, store_options: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Start a request. Credentials go by a private channel, never into arguments or files that others read."""

    @abstractmethod
    def wait(self) -> StepResult:
        """Wait for the end, passing on the step's log, and return its result, failed ones included."""

    @abstractmethod
    def resume(
        self,
        handle: Mapping[str, Any],
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
    ) -> StepResult:
        """Find a started run again and wait for it."""

    @abstractmethod
    def cancel(self) -> None:
        """End the run and everything it started; returns when nothing of it is left."""
