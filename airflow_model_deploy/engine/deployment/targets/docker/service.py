"""The user's description of a service on a container engine, and how its objects there are named and known."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow_model_deploy.engine.containers import Credentials, Engine, Limits
from airflow_model_deploy.engine.deployment.address import is_loopback, url_host
from airflow_model_deploy.engine.errors import InputError

PREFIX = "io.model-deploy."
SERVICE, ROLE, REVISION, IMAGE = (PREFIX + name for name in ("service", "role", "revision", "image"))
KIND = PREFIX + "kind"
FRONT, SERVER = "front", "server"
STATE_FOLDER = "/run/model-server"
ENDED = ("exited", "created", "dead")
SERVABLE_FOLDER = "/servable"
PORT = 8080
DRAIN_OPTION = "--drain-seconds"

# Shorter than the engine's own bound: the revision's name comes behind it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,62}")
_IMAGE = re.compile(r"(?:\S+@)?sha256:([0-9a-f]{64})")
_ANY = ("0.0.0.0", "::")  # noqa: S104


@dataclass(frozen=True)
class Service:
    """A service on a container engine.

    Args:
        name: the service's name, and the front container's.
        engine: where it runs.
        port: the public port of the engine's machine.
        limits: what each of its servers may use.
        host: the public address there; loopback unless the network is meant to reach it.
        ready_timeout_s: seconds a server may take to load and to answer.
        drain_s: seconds a server may take to finish accepted requests.
        credentials: for the registries that images come from.
    """

    name: str
    engine: Engine
    port: int
    limits: Limits
    host: str = "127.0.0.1"
    ready_timeout_s: float = 60.0
    drain_s: float = 10.0
    credentials: tuple[Credentials, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                "name of the service",
                found=repr(self.name),
                wanted="2 to 63 letters, digits and _.- only, a letter or digit first",
            )
        if not 0 < self.port < 65536:
            raise InputError(f"port of {self.name}", found=self.port, wanted="1 to 65535")
        for what, value in (("ready_timeout_s", self.ready_timeout_s), ("drain_s", self.drain_s)):
            if not value > 0:
                raise InputError(f"{what} of {self.name}", found=value, wanted="more than 0 seconds")

    @property
    def url(self) -> str:
        """The public URL: where the engine is on another machine, by that machine's name."""
        elsewhere = self._elsewhere
        host = url_host(elsewhere if elsewhere and self.host in _ANY else self.host)
        return f"http://{host}:{self.port}"

    @property
    def only_there(self) -> bool:
        """Whether the public address leads to this machine from here, and the engine is on another."""
        return bool(self._elsewhere) and is_loopback(self.host)

    @property
    def _elsewhere(self) -> str:
        """The engine's machine, where it is named and another than this one."""
        remote = urlsplit(self.engine.address)
        name = "" if remote.scheme == "unix" else remote.hostname or ""
        return "" if is_loopback(name) else name

    def container(self, revision: str) -> str:
        """The name of a revision's container."""
        return f"{self.name}-{revision}"

    def labels(self, role: str, **more: str) -> dict[str, str]:
        """What tells our objects from everybody else's."""
        return {SERVICE: self.name, ROLE: role, **{PREFIX + key: value for key, value in more.items()}}

    def refuse_foreign(self, thing: str, labels: dict[str, str] | None, role: str) -> None:
        """Leave alone what has one of our names and isn't ours.

        Raises:
            InputError: the labels aren't what we give to such a thing.
        """
        found = labels or {}
        if (found.get(SERVICE), found.get(ROLE)) != (self.name, role):
            raise InputError(
                f"{thing} of the engine",
                found="something of that name that this service did not make",
                wanted=f"none, or one with the labels {SERVICE}={self.name} and {ROLE}={role}",
                remedy="Give the service another name, or remove it if nobody needs it.",
            )


def revision_of(image: str) -> str:
    """The revision that an image is: the first 12 digits of its digest.

    Raises:
        InputError: the image is named by a tag, which may be another image tomorrow.
    """
    match = _IMAGE.fullmatch(image)
    if match is None:
        raise InputError(
            f"image {image!r}",
            found="no digest",
            wanted="repository@sha256:<64 digits>, or an image's id",
            remedy="Deploy the digest that the build reported.",
        )
    return match[1][:12]


def settings(service: Service, live: dict[str, Any] | None) -> dict[str, Any]:
    """What is written down with a decision, so that whoever knows only the name finds the same service.

    Where a revision is live, it is what its container was made with: a deployment that fails changes nothing.
    """
    limits, drain_s = service.limits, service.drain_s
    if live is not None:
        there, command = live["HostConfig"], live["Config"]["Cmd"]
        limits = Limits(there["Memory"], there["NanoCpus"] / 1e9, there["PidsLimit"])
        drain_s = float(command[command.index(DRAIN_OPTION) + 1])
    return {
        "limits": asdict(limits),
        "ready_timeout_seconds": service.ready_timeout_s,
        "drain_seconds": drain_s,
    }
