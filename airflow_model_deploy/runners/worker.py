"""Runs a step as a subprocess of the task: another interpreter if wanted, and no orphan whatever happens.

The child stays in the task's process group, inherits none of Airflow's sockets or secrets, and reads its standard
input as a lifeline: when this process ends, by SIGKILL too, the pipe closes and the child ends with its children.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.runners.base import Log, Runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.steps import StepRequest, StepResult

_CANCEL_SECONDS = 10.0
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
        self._process: subprocess.Popen[bytes] | None = None
        self._request: StepRequest | None = None
        self._options: Mapping[str, Any] | None = None

    def start(
        self, request: StepRequest, *, store_options: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Start the subprocess; request and credentials go through its standard input and leave no file."""
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
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(),
                close_fds=True,
            )
        except OSError as error:
            raise RuntimeError(
                f"the interpreter {self.python} can't be started: {error}; wanted: a Python 3.11 or newer with"
                " airflow-model-deploy[engine]; correct `python`"
            ) from error
        self._send({"request": request.to_json(), "store_options": dict(store_options or {})})
        return {"pid": self._process.pid}

    def wait(self) -> StepResult:
        """Pass on the step's lines as they come; a step that left no result is one that was killed."""
        from airflow_model_deploy.engine.artifacts import Store
        from airflow_model_deploy.engine.steps import StepResult

        process, request = self._process, self._request
        if process is None or request is None or process.stdout is None:
            raise RuntimeError("wait() needs start()")
        last = ""
        try:
            for line in process.stdout:
                last = line.decode(errors="replace").rstrip()
                self.log.info("%s", last)
            code = process.wait()
        finally:
            self.cancel()
        value = Store(request.store, self._options).read_json(request.result) if request.result else None
        if value is not None:
            return StepResult.from_json(value)
        return StepResult(
            step=request.step,
            status="failed",
            error={
                "type": "StepEnded",
                "message": f"the step's process ended without a result (exit code {code}); last line: {last!r}",
                "permanent": code == 2,
            },
        )

    def resume(
        self,
        handle: Mapping[str, Any],
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
    ) -> StepResult:
        """Start anew: a subprocess never outlives its task."""
        del handle
        self.start(request, store_options=store_options)
        return self.wait()

    def cancel(self) -> None:
        """Close the lifeline, wait, and kill what is left after ten seconds."""
        process = self._process
        if process is None:
            return
        if process.stdin and not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(_CANCEL_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()

    def _send(self, value: dict[str, Any]) -> None:
        stream = self._process.stdin if self._process else None
        if stream is None:
            return
        try:
            stream.write(json.dumps(value).encode() + b"\n")
            stream.flush()
        except BrokenPipeError:
            self.log.warning("the step ended at once")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
    return {**kept, "PYTHONUNBUFFERED": "1"}
