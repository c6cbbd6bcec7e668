"""Starts the supervisor and waits for what it reports; decides nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_model_deploy.engine.deployment.targets.host.files import read_status
from airflow_model_deploy.engine.errors import RolloutError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_model_deploy.engine.deployment.desired import Desired
    from airflow_model_deploy.engine.deployment.targets.host.service import Service

_T = TypeVar("_T")
_POLL_SECONDS = 0.05
_START_AGAIN_SECONDS = 3.0
# Servers get what a program needs to run, and none of the secrets that a scheduler keeps in its environment.
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
)


def supervisor_pid(service: Service) -> int | None:
    """Return the running supervisor's process id, or None."""
    try:
        with (service.folder / "supervisor.lock").open("r+", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = lock.read().strip()
                return int(text) if text else 0
    except FileNotFoundError:
        pass
    return None


def start_supervisor(service: Service, revision: str) -> None:
    """Start a supervisor that outlives this process.

    Its program comes from the given release. One that runs stays when a newer release comes: to replace it
    would mean to let go of the public port.
    """
    logs = service.folder / "logs"
    logs.mkdir(exist_ok=True)
    program = service.releases / revision / "server" / "model_server" / "supervisor.py"
    # -I: its own folder holds the server's modules, and none of them may be taken for a standard one.
    command = [service.python, "-I", str(program), str(service.folder), "--detach"]
    with (logs / "supervisor.log").open("ab") as log:
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                start_new_session=True,
                check=True,
                timeout=service.ready_timeout_s,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise RolloutError(
                f"supervisor of {service.name}",
                found=error,
                wanted="it starts",
                remedy=f"See {logs}/supervisor.log.",
            ) from error


def wait_for(
    service: Service, desired: Desired, what: str, seen: Callable[[dict[str, Any]], _T | None]
) -> _T:
    """Wait until the supervisor has seen this decision and `seen` finds in its status what it looks for.

    A supervisor is started where none runs, whenever that happens: one that was about to end when the
    decision was written is replaced.

    Raises:
        RolloutError: it did not come within `ready_timeout_s`.
        UnavailableError: the public port can't be listened on.
    """
    deadline = time.monotonic() + service.ready_timeout_s
    started = float("-inf")
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        pid = supervisor_pid(service)
        running = pid is not None
        status = read_status(service) or {}
        if status.get("generation") == desired.generation:
            if "error" in status and not running:
                raise UnavailableError(
                    f"public port of {service.name}",
                    found=status["error"] + _holder(service.port),
                    wanted=f"{service.host}:{service.port} to listen on",
                    remedy="End who uses the port, or deploy with another.",
                )
            if status.get("pid") == pid and "error" not in status and (value := seen(status)) is not None:
                return value
        revision = desired.candidate or desired.live
        if not running and revision and time.monotonic() - started > _START_AGAIN_SECONDS:
            started = time.monotonic()
            start_supervisor(service, revision)
        time.sleep(_POLL_SECONDS)
    raise RolloutError(
        f"{what} of {service.name}",
        found=status.get("processes") or "no process",
        wanted=f"within {service.ready_timeout_s:g} s",
        remedy=f"See {service.folder / 'logs'}.",
    )


def _holder(port: int) -> str:
    """Name the process that listens on a port, where this user may see it."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                return f"; process {connection.pid} ({psutil.Process(connection.pid).name()}) listens on it"
    return ""


def wait_gone(service: Service, desired: Desired, revision: str) -> None:
    """Wait, at most as long as a drain may take, until the revision's process has ended."""
    deadline = time.monotonic() + service.drain_s + 5.0
    while time.monotonic() < deadline:
        status = read_status(service)
        if supervisor_pid(service) is None:
            return
        observed = status is not None and status.get("generation") == desired.generation
        if observed and status is not None and revision not in status.get("processes", {}):
            return
        time.sleep(_POLL_SECONDS)
