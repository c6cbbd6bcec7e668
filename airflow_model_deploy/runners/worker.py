"""Runs a step as a subprocess of the task: another interpreter if wanted, and no orphan whatever happens.

The child stays in the task's process group, inherits none of Airflow's sockets or secrets, and reads its standard
input as a lifeline: when this process ends, by SIGKILL too, the pipe closes and the child ends with its children.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError
from airflow_model_deploy.engine.lifeline import MARK
from airflow_model_deploy.runners.base import (
    PERMANENT_EXITS,
    Log,
    Runner,
    ended_without_result,
    first_line,
    pass_on,
    read_result,
)
from airflow_model_deploy.runners.child import Child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.steps import StepRequest, StepResult

# Airflow's settings, connections and variables may hold secrets; a step gets what it needs by its request.
_PRIVATE = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "_AIRFLOW", "__AIRFLOW")


class WorkerRunner(Runner):
    """Runs steps on the worker itself.

    :param python: interpreter that has the engine; None: this one.
    :param log: where the step's lines go.
    """

    def __init__(self, *, python: str | None = None, log: Log | None = None) -> None:
        self.python = python or sys.executable
        self.log: Log = log or logging.getLogger(__name__)
        self._child: Child | None = None
        self._request: StepRequest | None = None
        self._options: Mapping[str, Any] | None = None

    def start(
        self,
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
        connections: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Start the subprocess; request and credentials go through its standard input and leave no file.

        Raises:
            InputError: there is no such interpreter.
            UnavailableError: the system has no room for another process now.
        """
        self._request, self._options = request, store_options
        command = [
            self.python,
            "-P",  # nothing is imported from the working directory
            "-m",
            "airflow_model_deploy.engine.cli",
            "run",
            request.step,
            "--lifeline",
        ]
        try:
            self._child = Child(command, env=_environment())
        except OSError as error:
            raise _not_started(self.python, error) from error
        self._child.send(first_line(request, store_options, connections))
        return {"pid": self._child.pid}

    def wait(self) -> StepResult:
        """Pass on the step's lines as they come; a step that left no result is one that was killed."""
        child, request = self._child, self._request
        if child is None or request is None:
            raise RuntimeError("wait() needs start()")
        code, last = None, ""
        try:
            for line in child.lines():
                last = line or last
                pass_on(self.log, line)
            code = child.exit_code()
        finally:
            if code is None:
                child.end()
            child.close()
        message = _ending(code, last, cancelled=child.ended_by_us)
        return read_result(request, self._options) or ended_without_result(
            request, message, permanent=code in PERMANENT_EXITS
        )

    def cancel(self) -> None:
        """End the step and everything it started, in less than five seconds; also while `wait` runs."""
        if self._child is not None:
            self._child.end()


def _not_started(python: str, error: OSError) -> ModelDeployError:
    thing, found = f"the interpreter {python} can't be started", str(error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC):
        return InputError(
            thing,
            found=found,
            wanted="a Python 3.11 or newer with airflow-model-deploy[engine]",
            remedy="Correct `python`.",
        )
    return UnavailableError(thing, found=found, remedy="Free memory or processes; it is tried again.")


def _ending(code: int, last: str, *, cancelled: bool) -> str:
    """Say how a process ended that left no result."""
    if cancelled:
        return "the step was cancelled; nothing of it is left running, and a retry starts it anew"
    said = f"; last line: {last!r}"
    if code >= 0:
        return f"the step's process ended without a result (exit code {code}){said}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    remedy = {
        int(
            signal.SIGKILL
        ): "; on Linux often for want of memory: give the worker more of it, or run fewer tasks at once",
        int(
            signal.SIGSEGV
        ): "; a native library crashed: check that the versions of the extra 'engine' fit this machine",
    }.get(-code, "")
    return f"the step's process was killed by {name} and left no result{remedy}{said}"


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
    return {**kept, "PYTHONUNBUFFERED": "1", MARK: uuid4().hex}
