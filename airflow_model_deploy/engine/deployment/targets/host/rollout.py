"""Deploy and roll back on a host: write a decision, wait until it is observed, check, decide again.

State is derived from desired.json and the supervisor's status only, so that a call that was killed anywhere
is completed by the same call made again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.check import CheckResult
from airflow_model_deploy.engine.deployment.targets.host.desired import read_desired, write_desired
from airflow_model_deploy.engine.deployment.targets.host.releases import install, prune
from airflow_model_deploy.engine.deployment.targets.host.service import one_writer
from airflow_model_deploy.engine.deployment.targets.host.supervision import (
    supervisor_pid,
    wait_for,
    wait_gone,
)
from airflow_model_deploy.engine.errors import InputError, RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_model_deploy.engine.deployment.check import Check
    from airflow_model_deploy.engine.deployment.targets.host.desired import Action, Desired
    from airflow_model_deploy.engine.deployment.targets.host.service import Service


@dataclass(frozen=True)
class HostDeployment:
    """What serves now.

    Args:
        revision: the live revision.
        previous: where a rollback would lead.
        url: the public URL.
        changed: False when the revision already served and was only checked.
        golden: the check's result at the public URL.
    """

    revision: str
    previous: str | None
    url: str
    changed: bool
    golden: CheckResult


def _silent(_: str) -> None:
    return None


def deploy(
    service: Service, bundle: Path, *, check: Check, log: Callable[[str], None] = _silent
) -> HostDeployment:
    """Put a bundle into service, or leave what serves as it is.

    The new revision starts beside the live one and is checked at its private port. Then one write moves the
    traffic to the same process, which is checked again at the public port; the old revision stays at hand
    until that check has passed.

    Raises:
        InputError, IntegrityError: the bundle, or the service's description, can't be used.
        RolloutError: the revision did not start or was found wrong; what served before serves.
        UnavailableError: somebody else is changing the service, or the port is taken.
    """
    with one_writer(service):
        revision = install(bundle, service)
        log(f"{service.name}: revision {revision} is installed")
        desired = read_desired(service)
        _refuse_other_address(service, desired)
        if desired.live == revision:
            result = _complete(service, desired, check, log)
        else:
            result = _switch(service, desired, revision, "deploy", check, log)
        for name in prune(service):
            log(f"{service.name}: release {name} is removed")
        return result


def rollback(service: Service, *, check: Check, log: Callable[[str], None] = _silent) -> HostDeployment:
    """Put the previous revision back into service if it is healthy; the replaced one becomes the previous.

    Raises:
        RolloutError: there is no previous revision, or it did not start or was found wrong.
        UnavailableError: somebody else is changing the service, or the port is taken.
    """
    with one_writer(service):
        desired = read_desired(service)
        _refuse_other_address(service, desired)
        if desired.unconfirmed == "rollback":
            # An earlier call was killed after the switch: to go back once more would undo it.
            return _complete(service, desired, check, log)
        target = desired.previous
        if target is None or not (service.releases / target).is_dir():
            installed = sorted(folder.name for folder in service.releases.glob("[0-9a-f]*"))
            raise RolloutError(
                f"rollback of {service.name}",
                found=f"live {desired.live}, previous {target}, installed {installed or 'none'}",
                wanted="a previous revision on disk",
                remedy="Deploy the bundle that should serve.",
            )
        return _switch(service, desired, target, "rollback", check, log)


def _refuse_other_address(service: Service, desired: Desired) -> None:
    here, there = (service.host, service.port), (desired.host, desired.port)
    if desired.host is not None and here != there and supervisor_pid(service) is not None:
        raise InputError(
            f"address of {service.name}",
            found=f"{service.host}:{service.port}",
            wanted=f"{desired.host}:{desired.port}, where it serves now",
            remedy="Stop the service first to move it.",
        )


def _switch(
    service: Service, before: Desired, revision: str, action: Action, check: Check, log: Callable[[str], None]
) -> HostDeployment:
    desired = write_desired(service, before, candidate=revision, unconfirmed=None)
    with _on_failure(lambda: _withdraw_candidate(service, desired, revision, log)):
        port = wait_for(service, desired, f"revision {revision}", lambda s: _ready_port(s, revision))
        log(f"{service.name}: revision {revision} is ready at its private port {port}")
        _refuse_wrong(
            check(f"http://127.0.0.1:{port}", service.releases / revision),
            revision,
            "at its private port",
            log,
        )
    old = before.live
    # The old revision stays as a candidate: if the public check fails, it takes over without loading again.
    promoted = write_desired(
        service,
        desired,
        live=revision,
        previous=old or (before.previous if before.previous != revision else None),
        candidate=old,
        unconfirmed=action,
    )
    return _confirm(service, promoted, before.previous if old else None, check, log)


def _complete(service: Service, before: Desired, check: Check, log: Callable[[str], None]) -> HostDeployment:
    """Check a revision that is live already; finish its promotion where an earlier call was killed."""
    if before.unconfirmed:
        log(f"{service.name}: completing an interrupted {before.unconfirmed} of {before.live}")
        desired = write_desired(service, before)
        return _confirm(service, desired, None, check, log)
    desired = write_desired(service, before, candidate=None)
    result = _check_public(service, desired, check, log)
    return HostDeployment(str(desired.live), desired.previous, service.url, changed=False, golden=result)


def _confirm(
    service: Service, promoted: Desired, older: str | None, check: Check, log: Callable[[str], None]
) -> HostDeployment:
    with _on_failure(lambda: _revert(service, promoted, older, log)):
        result = _check_public(service, promoted, check, log)
    done = write_desired(service, promoted, candidate=None, unconfirmed=None)
    log(f"{service.name}: revision {done.live} serves at {service.url}")
    return HostDeployment(str(done.live), done.previous, service.url, changed=True, golden=result)


def _check_public(
    service: Service, desired: Desired, check: Check, log: Callable[[str], None]
) -> CheckResult:
    revision = str(desired.live)
    wait_for(service, desired, f"public port of revision {revision}", lambda s: _serves_alone(s, revision))
    result = check(service.url, service.releases / revision)
    _refuse_wrong(result, revision, f"at {service.url}", log)
    return result


def _refuse_wrong(result: CheckResult, revision: str, where: str, log: Callable[[str], None]) -> None:
    log(f"check of {revision} {where}: {result.summary}")
    if not result.passed:
        raise RolloutError(
            f"revision {revision} {where}",
            found=result.summary,
            wanted="a passed check",
            remedy="Nothing was put into service in its place; build a release that passes.",
        )


def _withdraw_candidate(
    service: Service, desired: Desired, revision: str, log: Callable[[str], None]
) -> None:
    log(f"{service.name}: revision {revision} is withdrawn; {desired.live or 'nothing'} serves")
    wait_gone(service, write_desired(service, desired, candidate=None), revision)


def _revert(service: Service, promoted: Desired, older: str | None, log: Callable[[str], None]) -> None:
    bad, good = str(promoted.live), promoted.previous
    # Without a candidate there was no live revision before: `previous` is only what once served.
    good = good if promoted.candidate else None
    log(f"{service.name}: revision {bad} is withdrawn; {good or 'nothing'} takes over")
    previous = older if good else promoted.previous
    reverted = write_desired(
        service, promoted, live=good, previous=previous, candidate=None, unconfirmed=None
    )
    if good:
        wait_for(service, reverted, f"return to {good}", lambda s: _serves_alone(s, good))
    wait_gone(service, reverted, bad)


@contextlib.contextmanager
def _on_failure(undo: Callable[[], None]) -> Iterator[None]:
    """Undo whatever the failure is: a check is the caller's code and may raise anything."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            undo()


def _ready_port(status: dict[str, Any], revision: str) -> int | None:
    process = status["processes"].get(revision, {})
    if process.get("state") == "failed":
        raise RolloutError(
            f"revision {revision}", found=process.get("reason"), wanted="a server that starts and stays"
        )
    return process["port"] if process.get("state") == "ready" else None


def _serves_alone(status: dict[str, Any], revision: str) -> bool | None:
    public = [name for name, process in status["processes"].items() if process.get("public")]
    return True if public == [revision] else None
