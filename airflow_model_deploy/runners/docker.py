"""Runs a step in a container of a Docker engine: nothing of it outlives the task, whoever ends the worker.

The container's standard input is the step's lifeline: the engine closes it when the connection of this process ends,
by SIGKILL too, and the step ends with it. Request and credentials go through it and leave no trace on the engine.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.runners.base import (
    PERMANENT_EXITS,
    Log,
    Runner,
    ended_without_result,
    first_line,
    pass_on,
    read_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from docker import APIClient

    from airflow_model_deploy.engine.steps import StepRequest, StepResult

LABEL = "io.model-deploy.step"
_KILLED = 137  # 128 + SIGKILL: by us, or for want of memory
_LEFTOVER_SECONDS = 3600


@dataclass(frozen=True)
class Container:
    """What a step's container is made of.

    Args:
        image: a worker image.
        memory_bytes: its limit; None: none.
        cpus: likewise.
        gpus: how many of the engine's; -1: all of them.
        network: its network.
        mounts: folders of the engine's machine that it sees, read only, at the same path.
    """

    image: str
    memory_bytes: int | None = None
    cpus: float | None = None
    gpus: int = 0
    network: str = "bridge"
    mounts: tuple[str, ...] = ()


class DockerRunner(Runner):
    """Runs steps in containers.

    :param connect: makes a client of the engine; called again to cancel, while another call waits.
    :param container: what to run.
    :param log: where the step's lines go.
    """

    def __init__(
        self, connect: Callable[[], APIClient], container: Container, *, log: Log | None = None
    ) -> None:
        self.container = container
        self.log: Log = log or logging.getLogger(__name__)
        self._connect = connect
        self._client: APIClient | None = None
        self._id: str | None = None
        self._socket: Any = None
        self._request: StepRequest | None = None
        self._options: Mapping[str, Any] | None = None
        self._cancelled = False

    def start(
        self,
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
        connections: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Create the container, hold its standard input, start it.

        Raises:
            InputError: the engine refuses the image or the container, or can't see a local store.
            UnavailableError: no engine answers.
        """
        from docker.errors import APIError, DockerException

        self._request, self._options = request, store_options
        try:
            self._client = client = self._connect()
            _sweep(client)
            self._id = client.create_container(**self._description(client, request))["Id"]
            self._socket = client.attach_socket(
                self._id, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            )
            client.start(self._id)
        except APIError as error:
            self._remove()
            raise _refused(self.container.image, error) from error
        except DockerException as error:
            raise UnavailableError(
                "the Docker engine does not answer",
                found=str(error),
                remedy="Start it, or name another in `docker`.",
            ) from error
        raw = getattr(self._socket, "_sock", self._socket)
        raw.settimeout(None)
        with suppress(BrokenPipeError):  # it ended at once; its last line will say why
            raw.sendall(first_line(request, store_options, connections))
        return {"container": self._id}

    def wait(self) -> StepResult:
        """Pass on the step's lines as they come; the container is removed at the end."""
        client, request = self._client, self._request
        if client is None or request is None or self._id is None:
            raise RuntimeError("wait() needs start()")
        last = ""
        try:
            for line in self._lines():
                last = line or last
                pass_on(self.log, line)
            code = int(client.wait(self._id)["StatusCode"])
            out_of_memory = bool(client.inspect_container(self._id)["State"]["OOMKilled"])
        finally:
            self._remove()
        found = read_result(request, self._options)
        return found or ended_without_result(
            request, self._ending(code, last, out_of_memory), permanent=code in PERMANENT_EXITS
        )

    def resume(
        self,
        handle: Mapping[str, Any],
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
        connections: Mapping[str, Any] | None = None,
    ) -> StepResult:
        """Start anew: a container never outlives its task."""
        del handle
        self.start(request, store_options=store_options, connections=connections)
        return self.wait()

    def cancel(self) -> None:
        """End the container and everything in it; also while `wait` runs."""
        from docker.errors import APIError

        if self._id is None:
            return
        self._cancelled = True
        # A client of its own: the other one may be in the middle of a call that this one interrupts.
        with suppress(APIError):
            self._connect().kill(self._id)

    def _description(self, client: APIClient, request: StepRequest) -> dict[str, Any]:
        container = self.container
        binds = {path: {"bind": path, "mode": "ro"} for path in container.mounts}
        store = _local_store(request.store, str(client.base_url))
        if store:
            binds[store] = {"bind": store, "mode": "rw"}
        options: dict[str, Any] = {
            "binds": binds,
            "network_mode": container.network,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "init": True,
        }
        if container.memory_bytes:
            options |= {"mem_limit": container.memory_bytes, "memswap_limit": container.memory_bytes}
        if container.cpus:
            options["nano_cpus"] = round(container.cpus * 1e9)
        if container.gpus:
            from docker.types import DeviceRequest

            options["device_requests"] = [DeviceRequest(count=container.gpus, capabilities=[["gpu"]])]
        return {
            "image": container.image,
            "command": ["run", request.step, "--lifeline"],
            "stdin_open": True,
            # Whose the files of a mounted store are: those that the task itself would have written.
            "user": f"{os.getuid()}:{os.getgid()}" if store else None,
            "environment": {"PYTHONUNBUFFERED": "1", "HOME": "/tmp"},  # noqa: S108 - the container's own
            "labels": {LABEL: request.step},
            "host_config": client.create_host_config(**options),
        }

    def _lines(self) -> Iterator[str]:
        from docker.utils.socket import frames_iter

        pending = b""
        for _, block in frames_iter(self._socket, tty=False):
            *whole, pending = (pending + block).split(b"\n")
            yield from (line.decode(errors="replace").rstrip() for line in whole)
        if pending:
            yield pending.decode(errors="replace").rstrip()

    def _ending(self, code: int, last: str, out_of_memory: bool) -> str:
        if self._cancelled:
            return "the step was cancelled; nothing of it is left running, and a retry starts it anew"
        if out_of_memory:
            limit = self.container.memory_bytes
            return f"the step's container ran out of memory (limit: {limit or 'the machine'} bytes); give it more"
        said = f"; last line: {last!r}"
        if code == _KILLED:
            return f"the step's container was killed from outside and left no result{said}"
        return f"the step's container ended without a result (exit code {code}){said}"

    def _remove(self) -> None:
        from docker.errors import APIError

        if self._socket is not None:
            self._socket.close()
        if self._client is not None and self._id is not None:
            with suppress(APIError):
                self._client.remove_container(self._id, force=True, v=True)


def _sweep(client: APIClient) -> None:
    """Remove the ended containers of tasks that were killed before they could."""
    from docker.errors import APIError

    for ended in client.containers(all=True, filters={"label": LABEL, "status": "exited"}):
        with suppress(APIError):  # another task may be removing it
            finished = client.inspect_container(ended["Id"])["State"]["FinishedAt"]
            # The one whose task is still reading its exit code is younger.
            age = datetime.now(UTC) - datetime.fromisoformat(finished[:19]).replace(tzinfo=UTC)
            if age.total_seconds() > _LEFTOVER_SECONDS:
                client.remove_container(ended["Id"], v=True)


def _local_store(url: str, engine: str) -> str | None:
    """Return the folder of a file:// store, which only an engine on this machine can mount.

    Raises:
        InputError: the engine is on another machine.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        return None
    if not engine.startswith(("http+docker://", "unix://", "npipe://")):
        raise InputError(
            "the store can't be reached from the container",
            found=f"{url}, and an engine at {engine}",
            wanted="a store that both machines reach, such as s3://",
            remedy="Set [model_deploy] store, or `store` of the operator.",
        )
    os.makedirs(parts.path, exist_ok=True)  # noqa: PTH103 - else the engine makes it, as root
    return parts.path


def _refused(image: str, error: Any) -> InputError | UnavailableError:
    told = str(error.explanation or error)
    if error.status_code == 404:
        return InputError(
            f"the worker image {image} isn't on the Docker engine",
            found=told,
            wanted="an image with the engine and its packages",
            remedy="Make it with `model-deploy image worker`, or pull it there.",
        )
    if error.is_server_error():
        return UnavailableError(
            "the Docker engine can't start the step's container", found=told, remedy="It is tried again."
        )
    return InputError(f"the Docker engine refuses a container of {image}", found=told, wanted="one that runs")
