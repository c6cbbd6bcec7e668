"""Deploy and roll back on a host: the blue/green strategy over desired.json and what the supervisor reports."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.blue_green import Deployment, go_back, put, silent
from airflow_model_deploy.engine.deployment.targets.host.files import read_desired, write_desired
from airflow_model_deploy.engine.deployment.targets.host.releases import install, prune
from airflow_model_deploy.engine.deployment.targets.host.service import Service, one_writer
from airflow_model_deploy.engine.deployment.targets.host.supervision import (
    supervisor_pid,
    wait_for,
    wait_gone,
)
from airflow_model_deploy.engine.errors import InputError, RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow_model_deploy.engine.deployment.check import Check
    from airflow_model_deploy.engine.deployment.desired import Desired


def deploy(
    service: Service, bundle: Path, *, check: Check, log: Callable[[str], None] = silent
) -> Deployment:
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
        _refuse_other_address(service)
        return put(HostPlace(service), revision, check, log)


def rollback(
    service: Service, *, check: Check, log: Callable[[str], None] = silent, attempt: str | None = None
) -> Deployment:
    """Put the previous revision back into service if it is healthy; the replaced one becomes the previous.

    Args:
        service: the service.
        check: judges a server's answers.
        log: takes lines.
        attempt: names this rollback: made again under the same name, it only checks what it made live.

    Raises:
        RolloutError: there is no previous revision, or it did not start or was found wrong.
        UnavailableError: somebody else is changing the service, or the port is taken.
    """
    with one_writer(service):
        _refuse_other_address(service)
        return go_back(HostPlace(service), check, log, attempt)


@contextlib.contextmanager
def reach(service: Service) -> Iterator[str]:
    """Give the base URL at which this process reaches the service's public side: here, the public URL."""
    yield service.url


def _refuse_other_address(service: Service) -> None:
    desired = read_desired(service)
    here, there = (service.host, service.port), (desired.host, desired.port)
    if desired.host is not None and here != there and supervisor_pid(service) is not None:
        raise InputError(
            f"address of {service.name}",
            found=f"{service.host}:{service.port}",
            wanted=f"{desired.host}:{desired.port}, where it serves now",
            remedy="Stop the service first to move it.",
        )


@dataclass(frozen=True)
class HostPlace:
    """A service of this host: the supervisor carries out what is written here."""

    service: Service

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def url(self) -> str:
        """The public URL."""
        return self.service.url

    def read(self) -> Desired:
        """Return the decision as it is now."""
        return read_desired(self.service)

    def write(self, before: Desired, **changes: Any) -> Desired:
        """Replace the decision; the lock of the service says that nobody else does."""
        return write_desired(self.service, before, **changes)

    def missing(self, revision: str) -> str | None:
        """Return which revisions are installed if this one isn't."""
        if revision and (self.service.releases / revision).is_dir():
            return None
        return str(sorted(folder.name for folder in self.service.releases.glob("[0-9a-f]*")) or "none")

    def release(self, revision: str) -> Path:
        """Return the installed bundle."""
        return self.service.releases / revision

    @contextlib.contextmanager
    def candidate(self, desired: Desired, revision: str) -> Iterator[str]:
        """Wait until the supervisor has started the revision and it is ready."""
        port = wait_for(
            self.service, desired, f"revision {revision}", lambda status: _ready_port(status, revision)
        )
        yield f"http://127.0.0.1:{port}"

    def wait_public(self, desired: Desired) -> None:
        """Wait until the live revision accepts at the public port, and no other."""
        live = str(desired.live)
        wait_for(
            self.service,
            desired,
            f"public port of revision {live}",
            lambda status: _serves_alone(status, live),
        )

    def public(self, desired: Desired) -> AbstractContextManager[str]:
        """Give the public URL."""
        del desired
        return reach(self.service)

    def wait_gone(self, desired: Desired, revision: str) -> None:
        """Wait until the revision's process has ended."""
        wait_gone(self.service, desired, revision)

    def settle(self, desired: Desired) -> list[str]:
        """Remove old releases; the supervisor ends processes by itself."""
        del desired
        return [f"release {name}" for name in prune(self.service)]


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
