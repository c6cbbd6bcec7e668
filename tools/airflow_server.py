"""A real Airflow on this machine for the demo and the tests: SQLite, local executor, loopback only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
_READY_SECONDS = 240.0
_MORE_QUESTIONS = 3


class AirflowServer:
    """A running Airflow and its REST API.

    Args:
        home: AIRFLOW_HOME.
        port: of the API server.
    """

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=self.url, timeout=30.0)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API below /api/v2 and return its JSON."""
        response = self._answer(method, f"/api/v2{path}", body)
        if response.status_code >= 400:
            raise RuntimeError(
                f"Airflow answered {response.status_code} to {method} {path}: {response.text[:500]}"
            )
        return response.json() if response.content else None

    def wait_until_ready(self, process: subprocess.Popen[bytes], dag_ids: tuple[str, ...]) -> None:
        """Wait until every part is healthy and the Dags are parsed."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(
                    f"Airflow ended with exit code {process.returncode}; see {self.home}/airflow.log"
                )
            if self._healthy() and all(self._has_dag(dag_id) for dag_id in dag_ids):
                return
            time.sleep(0.5)
        raise RuntimeError(f"Airflow was not ready after {_READY_SECONDS:.0f} s; see {self.home}/airflow.log")

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Unpause a Dag, trigger it and return the run's id."""
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})
        run = self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances."""
        found: list[dict[str, Any]] = self.call(
            "GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100"
        )["task_instances"]
        return found

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the run's state."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def result(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return what a task returned."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value?deserialize=true"
        value = self.call("GET", path)["value"]
        return json.loads(value) if isinstance(value, str) else dict(value)

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[str]:
        """Return the lines of a task's log."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.call("GET", path)["content"]
        return [entry.get("event", "") if isinstance(entry, dict) else str(entry) for entry in content]

    def _answer(self, method: str, path: str, body: Any) -> httpx.Response:
        """Ask; a question that changes nothing is asked again where a busy machine has no answer in time."""
        for _ in range(_MORE_QUESTIONS if method == "GET" else 0):
            with suppress(httpx.TimeoutException):
                return self._client.request(method, path, json=body)
        return self._client.request(method, path, json=body)

    def _healthy(self) -> bool:
        try:
            token = self._client.get("/auth/token").json()["access_token"]
            self._client.headers["Authorization"] = f"Bearer {token}"
            health = self.call("GET", "/monitor/health")
        except (httpx.HTTPError, RuntimeError, ValueError, KeyError):
            return False
        return all(
            health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor")
        )

    def _has_dag(self, dag_id: str) -> bool:
        try:
            self.call("GET", f"/dags/{dag_id}")
        except RuntimeError:
            errors = self.call("GET", "/importErrors")["import_errors"]
            if errors:
                raise RuntimeError(f"a Dag can't be imported:\n{errors[0]['stack_trace']}") from None
            return False
        return True


def settings(home: Path, port: int, dags: Path, more: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of such an Airflow."""
    values = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",  # of a test that starts it: every process would sign by its own key
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PATH": _path(sys.executable),
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **values, **(more or {})}


@contextmanager
def running_airflow(
    home: Path,
    *,
    dags: Path,
    dag_ids: tuple[str, ...],
    port: int | None = None,
    more: dict[str, str] | None = None,
    python: str = sys.executable,
) -> Iterator[AirflowServer]:
    """Run `airflow standalone` for the time of the block; everything it started ends with it."""
    home.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    server = AirflowServer(home, port)
    with (home / "airflow.log").open("ab") as log:
        process = subprocess.Popen(
            [python, "-m", "airflow", "standalone"],
            env=settings(home, port, dags, {"PATH": _path(python), **(more or {})}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=home,
        )
        try:
            server.wait_until_ready(process, dag_ids)
            yield server
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End Airflow's processes: they ignore the end of their parent, so each is told."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in reversed(family):
        _tell(member, "terminate")
    _, left = psutil.wait_procs(family, timeout=20)
    for member in left:
        _tell(member, "kill")
    process.wait()
    if process.pid != os.getpgrp():
        with suppress(ProcessLookupError):  # whatever it started meanwhile, where it leads a group of its own
            os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _path(python: str) -> str:
    """Return a PATH on which `airflow`, by which standalone starts its parts, is this interpreter's."""
    return f"{Path(python).parent}:{os.environ.get('PATH', '')}"


def _tell(member: psutil.Process, what: str) -> None:
    try:
        getattr(member, what)()
    except psutil.NoSuchProcess:
        return
