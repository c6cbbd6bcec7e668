"""Looks at a service and ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.host.files import (
    read_desired,
    read_status,
    write_desired,
)
from airflow_model_deploy.engine.deployment.targets.host.service import one_writer
from airflow_model_deploy.engine.deployment.targets.host.supervision import supervisor_pid

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.host.service import Service


@dataclass(frozen=True)
class ProcessStatus:
    """One revision's server as the supervisor last saw it; `port` is the private one."""

    revision: str
    pid: int | None
    port: int | None
    state: str
    public: bool
    exits: int
    reason: str | None


@dataclass(frozen=True)
class HostStatus:
    """What is wanted of a service and what runs.

    Args:
        live: the revision that should serve.
        previous: where a rollback leads.
        candidate: a revision under check.
        url: the public URL.
        serving: whether the live revision accepts at the public URL.
        supervisor: the supervisor's process id, None where none runs.
        processes: the servers; empty without a supervisor.
        error: why the supervisor gave up, if it did.
    """

    live: str | None
    previous: str | None
    candidate: str | None
    url: str
    serving: bool
    supervisor: int | None
    processes: tuple[ProcessStatus, ...]
    error: str | None


def status(service: Service) -> HostStatus:
    """Look at a service; changes nothing."""
    desired = read_desired(service)
    supervisor = supervisor_pid(service)
    document = read_status(service) or {}
    # Without a supervisor its last words are old, and its servers have ended with it.
    found = document.get("processes", {}) if supervisor is not None else {}
    processes = tuple(ProcessStatus(revision=name, **fields) for name, fields in sorted(found.items()))
    return HostStatus(
        live=desired.live,
        previous=desired.previous,
        candidate=desired.candidate,
        url=service.url,
        serving=any(p.revision == desired.live and p.public for p in processes),
        supervisor=supervisor,
        processes=processes,
        error=document.get("error"),
    )


def stop(service: Service) -> None:
    """End a service: accepted requests are answered, then every process ends; releases stay.

    Raises:
        UnavailableError: somebody else is changing the service.
    """
    if not service.folder.is_dir():
        return
    with one_writer(service):
        desired = read_desired(service)
        if desired.live or desired.candidate:
            write_desired(service, desired, live=None, candidate=None, unconfirmed=None)
        deadline = time.monotonic() + service.drain_s + 4.0
        while (pid := supervisor_pid(service)) is not None:
            if time.monotonic() > deadline:
                _kill_group(pid)
                return
            time.sleep(0.05)


def _kill_group(pid: int) -> None:
    # The servers are in the supervisor's group; were one to have left it, its lifeline still ends it.
    with contextlib.suppress(ProcessLookupError):
        group = os.getpgid(pid)
        if pid > 0 and group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
