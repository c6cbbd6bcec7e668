"""The user's description of a service on a host, and where its files are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.address import url_host
from airflow_model_deploy.engine.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Service:
    """A service on this host.

    Args:
        root: folder that holds services, one folder each.
        name: the service's name.
        port: the public port.
        host: the public address; loopback unless the network is meant to reach it.
        python: interpreter that runs supervisor and servers; it needs what requirements.txt of the bundle
        lists.
        threads: threads inside an operator, instead of the servable's number.
        ready_timeout_s: seconds a server may take to load and to answer.
        drain_s: seconds a server may take to finish accepted requests.
    """

    root: Path
    name: str
    port: int
    host: str = "127.0.0.1"
    python: str = field(default_factory=lambda: sys.executable)
    threads: int | None = None
    ready_timeout_s: float = 60.0
    drain_s: float = 10.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                "name of the service", found=repr(self.name), wanted="letters, digits and ._- only"
            )
        if not 0 < self.port < 65536:
            raise InputError(f"port of {self.name}", found=self.port, wanted="1 to 65535")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads of {self.name}", found=self.threads, wanted="1 or more, or None")
        for what, value in (("ready_timeout_s", self.ready_timeout_s), ("drain_s", self.drain_s)):
            if not value > 0:
                raise InputError(f"{what} of {self.name}", found=value, wanted="more than 0 seconds")

    @property
    def folder(self) -> Path:
        """The service's folder."""
        return self.root.absolute() / self.name

    @property
    def releases(self) -> Path:
        """Where releases are installed, one folder a revision."""
        return self.folder / "releases"

    @property
    def url(self) -> str:
        """The public URL."""
        return f"http://{url_host(self.host)}:{self.port}"


@contextlib.contextmanager
def one_writer(service: Service) -> Iterator[None]:
    """Hold the right to decide for the service.

    Raises:
        UnavailableError: somebody else holds it.
    """
    service.folder.mkdir(parents=True, exist_ok=True)
    path = service.folder / "deploy.lock"
    # Opened without truncation: the holder's number in it must stay readable.
    with path.open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = path.read_text(encoding="ascii").strip() or "unknown"
            raise UnavailableError(
                f"service {service.name}",
                found=f"process {holder} is changing it (it holds {path})",
                wanted="one writer at a time",
                remedy="Wait for it, or end it, and run this again.",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
