"""The service's front container: made, asked and ended. What it decides is told to it; what it does is its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import (
    ExecStream,
    Limits,
    engine_errors,
    find_image,
    host_config,
    run_inside,
    tail,
)
from airflow_model_deploy.engine.deployment.targets.docker.objects import find_container, running
from airflow_model_deploy.engine.deployment.targets.docker.service import (
    ENDED,
    FRONT,
    IMAGE,
    PORT,
    STATE_FOLDER,
    Service,
)
from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import APIClient

# It does nothing but wait; the memory is for the interpreters that ask it beside it.
_LIMITS = Limits(memory_bytes=96 << 20, cpus=0.5, pids=32)
# -S: what `site` would set up isn't needed, and it's most of the time to start.
_PROGRAM = ["python3", "-S", "-m", "model_server.front", "--state", STATE_FOLDER]
_CONFLICT = 6
_PROTOCOL = 1
# What a model image stands on: the server's program, and what runs it.
_BASE = "org.opencontainers.image.base.digest"
# How the engine words it: it has no type for it.
_PORT_TAKEN = ("already allocated", "already in use")
_POLL_SECONDS = 0.1
_LOCK_PATIENCE_SECONDS = 1.0


class _PortTakenError(UnavailableError):
    """The public port is somebody else's: another front would find it so, too."""


class Front:
    """The front of a service, on an engine that was connected to."""

    def __init__(self, service: Service, client: APIClient) -> None:
        self.service, self.client = service, client

    def ensure(self, image: str, log: Callable[[str], None], *, renew: bool) -> None:
        """See that the front runs; one that runs stays as it is, for it holds the public port.

        Args:
            image: what a front is made of.
            log: takes lines.
            renew: whether one that has ended and is made of something else is replaced.

        Raises:
            InputError: something else has its name, or it runs at another address.
            UnavailableError: the port is taken.
        """
        self._ensure_volume()
        name = self.service.name
        found = find_container(self.client, name)
        if found is None:
            self._forget_unfinished()
            self._create(image, name)
            return
        labels = found["Config"]["Labels"]
        self.service.refuse_foreign(f"container {name}", labels, FRONT)
        if running(found):
            self._refuse_other_address(found)
            if _program(self.client, image) != labels.get(_BASE, labels.get(IMAGE)):
                log(
                    f"{name}: the running front runs the server of {labels.get(IMAGE)}; "
                    "`stop`, then deploy, replaces it"
                )
        elif not self._started(found, image, renew=renew):
            self._replace(found, image)

    def read(self) -> dict[str, Any]:
        """What is wanted."""
        return self._ask("read")

    def write(self, generation: int, document: dict[str, Any]) -> dict[str, Any]:
        """Replace what is wanted if that is still of this generation; return it as it is written.

        Raises:
            UnavailableError: somebody else wrote meanwhile, or the front can't write.
        """
        arguments = ["write", str(generation), json.dumps(document)]
        try:
            answer = self._ask(*arguments)
        except UnavailableError:
            # It may be written all the same: the same words again can't do harm.
            answer = self._ask(*arguments)
        if "error" in answer:
            raise UnavailableError(
                f"decision of {self.service.name}",
                found=answer["error"],
                wanted=f"free space in volume {self.service.name}",
                remedy="Free space on the engine's disk (`docker system df`), and run this again.",
            )
        written: dict[str, Any] = answer.get("conflict", answer)
        if {**document, "generation": generation + 1} != written:
            raise UnavailableError(
                f"decision of {self.service.name}",
                found=f"generation {written.get('generation')}, somebody else's",
                wanted=f"generation {generation}, as it was read",
                remedy="Run this again.",
            )
        return written

    def status(self, after: int = -1) -> dict[str, Any]:
        """What is there, once it is another than the one of number `after`, or after a second."""
        return self._ask("status", "--after", str(after))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the right to decide for the service, once the front answers; it ends with this process.

        Raises:
            UnavailableError: somebody else holds it, or the front doesn't answer.
        """
        who = f"process {os.getpid()} on {socket.gethostname()}"
        start = time.monotonic()
        while True:
            stream = ExecStream(self.client, self.service.name, [*_PROGRAM, "lock", who])
            try:
                answer = self._understood(_line(stream))
                if "locked" in answer:
                    yield
                    return
            finally:
                stream.close()
            self._refuse_to_wait(answer, time.monotonic() - start)
            time.sleep(_POLL_SECONDS)

    def _refuse_to_wait(self, answer: dict[str, Any], waited: float) -> None:
        if "conflict" in answer:
            # The hold of a process that was killed ends when the engine has noticed.
            if waited > _LOCK_PATIENCE_SECONDS:
                raise UnavailableError(
                    f"service {self.service.name}",
                    found=f"{answer['conflict']} is changing it",
                    wanted="one writer at a time",
                    remedy="Wait for it, or end it, and run this again.",
                )
            return
        found = find_container(self.client, self.service.name)
        if found is None or not running(found) or waited > self.service.ready_timeout_s:
            raise self._silent(answer.get("error"))

    def stop(self) -> None:
        """End the front, and with it the public port; what is wanted stays written."""
        with engine_errors(f"container {self.service.name}"):
            self.client.stop(self.service.name, timeout=5)

    def _ensure_volume(self) -> None:
        name = self.service.name
        with engine_errors(f"volume {name}"):
            # Creating one that is there is no error, and changes nothing.
            volume = self.client.create_volume(name, labels=self.service.labels(FRONT))
        self.service.refuse_foreign(f"volume {name}", volume.get("Labels"), FRONT)

    def _started(self, found: dict[str, Any], image: str, *, renew: bool) -> bool:
        """Start a front that has ended, if it is the one that would be made."""
        same = found["Config"]["Labels"].get(IMAGE) == image or not renew
        here = address_of(found) == (self.service.host, self.service.port)
        if not (same and here) or found["State"]["Status"] not in ("exited", "created"):
            return False
        try:
            self._start(found["Id"])
        except _PortTakenError:
            raise
        except ModelDeployError:
            return False
        return True

    def _replace(self, found: dict[str, Any], image: str) -> None:
        """Make a front anew; the old one, by which the service is known, goes once the new one has started."""
        new = self._forget_unfinished()
        if found["State"]["Status"] not in ENDED:
            self.stop()
        created = self._create(image, new)
        self._remove(found["Id"])
        with engine_errors(f"container {new}"):
            self.client.rename(created, self.service.name)

    def _forget_unfinished(self) -> str:
        """Remove what an interrupted replacement left behind; return the name that it goes by."""
        new = f"{self.service.name}.new"
        left = find_container(self.client, new)
        if left is not None:
            self.service.refuse_foreign(f"container {new}", left["Config"]["Labels"], FRONT)
            self._remove(left["Id"])
        return new

    def _remove(self, container: str) -> None:
        with engine_errors(f"front of {self.service.name}"):
            self.client.remove_container(container, force=True)

    def _create(self, image: str, name: str) -> str:
        service = self.service
        with engine_errors(f"front of {service.name}"), _refusing_a_race(service.name):
            created = self.client.create_container(
                image,
                name=name,
                entrypoint=_PROGRAM,
                command=["serve", "--port", str(PORT)],
                labels=service.labels(FRONT, image=image),
                ports=[PORT],
                stop_signal="SIGTERM",
                healthcheck={"test": ["NONE"]},
                host_config=host_config(
                    self.client,
                    _LIMITS,
                    binds={service.name: {"bind": STATE_FOLDER, "mode": "rw"}},
                    ports={f"{PORT}/tcp": (service.host, service.port)},
                    network="bridge",
                    restart="unless-stopped",
                ),
            )
        try:
            self._start(created["Id"])
        except ModelDeployError:
            with contextlib.suppress(ModelDeployError):
                self._remove(created["Id"])
            raise
        return str(created["Id"])

    def _start(self, container: str) -> None:
        service = self.service
        try:
            with engine_errors(f"start of the front of {service.name}"):
                self.client.start(container)
        except ModelDeployError as error:
            if not any(words in str(error.found) for words in _PORT_TAKEN):
                raise
            raise _PortTakenError(
                f"public port of {service.name}",
                found=error.found,
                wanted=f"{service.host}:{service.port} of the engine's machine to listen on",
                remedy="End who uses the port, or deploy with another.",
            ) from error

    def _refuse_other_address(self, found: dict[str, Any]) -> None:
        there = address_of(found)
        here = (self.service.host, self.service.port)
        if there != here:
            raise InputError(
                f"address of {self.service.name}",
                found=f"{here[0]}:{here[1]}",
                wanted="{}:{}, where it serves now".format(*there),
                remedy="Stop the service first to move it.",
            )

    def _ask(self, *arguments: str) -> dict[str, Any]:
        name = self.service.name
        try:
            result = run_inside(self.client, name, [*_PROGRAM, *arguments])
        except InputError as error:
            # The engine refuses to run a program in a container that has ended.
            raise self._silent(error.found) from error
        if result.exit_code not in (0, _CONFLICT):
            raise self._silent(result.stderr or f"exit code {result.exit_code}")
        try:
            return self._understood(json.loads(result.stdout))
        except ValueError as error:
            raise self._silent(f"{error} in {result.stdout[:200]!r}") from error

    def _understood(self, answer: dict[str, Any]) -> dict[str, Any]:
        protocol = answer.pop("protocol", _PROTOCOL)
        if protocol != _PROTOCOL:
            raise InputError(
                f"protocol of the front of {self.service.name}",
                found=protocol,
                wanted=_PROTOCOL,
                remedy="Use the version of this program that deployed it, or `stop` the service with that one first.",
            )
        return answer

    def _silent(self, found: object) -> UnavailableError:
        return UnavailableError(
            f"front of {self.service.name}",
            found=f"{found}; its last words: {tail(self.client, self.service.name, 5)}",
            wanted="an answer",
            remedy="Deploy again; see `docker logs` of the container of that name.",
        )


@contextlib.contextmanager
def _refusing_a_race(name: str) -> Iterator[None]:
    """Tell a name that was taken since it was looked for from what the engine refuses for good."""
    from docker.errors import APIError

    try:
        yield
    except APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:
            raise
        raise UnavailableError(
            f"front of {name}",
            found=str(error.explanation),
            wanted="one writer at a time",
            remedy="Run this again.",
        ) from error


def address_of(found: dict[str, Any]) -> tuple[str, int]:
    """The address that an inspected front container publishes."""
    binding = found["HostConfig"]["PortBindings"][f"{PORT}/tcp"][0]
    return binding["HostIp"], int(binding["HostPort"])


def _program(client: APIClient, image: str) -> str:
    found = find_image(client, image) or {}
    labels = (found.get("Config") or {}).get("Labels") or {}
    return str(labels.get(_BASE, image))


def _line(stream: ExecStream) -> dict[str, Any]:
    said = b""
    while b"\n" not in said and (piece := stream.receive()) is not None:
        said += piece[1]
    try:
        document: dict[str, Any] = json.loads(said)
    except ValueError:
        return {"error": said.decode("utf-8", "replace").strip() or "it said nothing"}
    return document
