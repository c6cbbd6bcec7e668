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
    host_config,
    run_inside,
    tail,
)
from airflow_model_deploy.engine.deployment.targets.docker.objects import find_container, running
from airflow_model_deploy.engine.deployment.targets.docker.service import FRONT, PORT, STATE_FOLDER, Service
from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import APIClient

# It does nothing but wait; the memory is for the interpreters that ask it beside it.
_LIMITS = Limits(memory_bytes=96 << 20, cpus=0.5, pids=32)
# -S: what `site` would set up isn't needed, and it's most of the time to start.
_PROGRAM = ["python3", "-S", "-m", "model_server.front", "--state", STATE_FOLDER]
_CONFLICT = 6
# How the engine words it: it has no type for it.
_PORT_TAKEN = ("already allocated", "already in use")
_POLL_SECONDS = 0.1
_LOCK_PATIENCE_SECONDS = 1.0


class Front:
    """The front of a service, on an engine that was connected to."""

    def __init__(self, service: Service, client: APIClient) -> None:
        self.service, self.client = service, client

    def ensure(self, image: str) -> None:
        """See that the front runs; one that runs stays as it is, for it holds the public port.

        Raises:
            InputError: something else has its name, or it runs at another address.
            UnavailableError: the port is taken.
        """
        self._ensure_volume()
        name = self.service.name
        found = find_container(self.client, name)
        if found is not None:
            self.service.refuse_foreign(f"container {name}", found["Config"]["Labels"], FRONT)
        if found is None or not running(found):
            if found is not None:
                with engine_errors(f"container {name}"):
                    self.client.remove_container(found["Id"], force=True)
            self._create(image)
        else:
            self._refuse_other_address(found)

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
        written: dict[str, Any] = answer.get("conflict", answer)
        if {**document, "generation": generation + 1} != written:
            raise UnavailableError(
                f"decision of {self.service.name}",
                found=answer.get("error") or f"generation {written.get('generation')}, somebody else's",
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
                answer = _line(stream)
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

    def _create(self, image: str) -> None:
        service = self.service
        with engine_errors(f"front of {service.name}"), _refusing_a_race(service.name):
            created = self.client.create_container(
                image,
                name=service.name,
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
            with engine_errors(f"start of the front of {service.name}"):
                self.client.start(created["Id"])
        except ModelDeployError as error:
            with contextlib.suppress(ModelDeployError), engine_errors(f"front of {service.name}"):
                self.client.remove_container(created["Id"], force=True)
            if not any(words in str(error.found) for words in _PORT_TAKEN):
                raise
            raise UnavailableError(
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
        document: dict[str, Any] = json.loads(result.stdout)
        return document

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


def _line(stream: ExecStream) -> dict[str, Any]:
    said = b""
    while b"\n" not in said and (piece := stream.receive()) is not None:
        said += piece[1]
    try:
        document: dict[str, Any] = json.loads(said)
    except ValueError:
        return {"error": said.decode("utf-8", "replace").strip() or "it said nothing"}
    return document
