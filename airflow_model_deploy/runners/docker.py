"""Runs a step in a container of a Docker engine: nothing of it outlives the task, whoever ends the worker.

The container's standard input is the step's lifeline: the engine closes it when the connection of this process ends,
by SIGKILL too, and the step ends with it. Request and credentials go through it and leave no trace on the engine.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError
from airflow_model_deploy.runners.base import (
    PERMANENT_EXITS,
    Log,
    Runner,
    ended_without_result,
    first_line,
    pass_on,
    read_result,
)
from airflow_model_deploy.runners.container import LABEL, Container, describe, remove, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from docker import APIClient

    from airflow_model_deploy.engine.containers import ContainerStream, Credentials, Engine
    from airflow_model_deploy.engine.steps import StepRequest, StepResult

__all__ = ["LABEL", "Container", "DockerRunner"]

_KILLED = 137  # 128 + SIGKILL: by us, or for want of memory
_MOST_OF_A_LINE = 64 * 1024


class DockerRunner(Runner):
    """Runs steps in containers.

    :param engine: which one.
    :param container: what to run.
    :param credentials: for the image's registry, where it isn't on the engine yet.
    :param log: where the step's lines go.
    """

    def __init__(
        self,
        engine: Engine,
        container: Container,
        *,
        credentials: Sequence[Credentials] = (),
        log: Log | None = None,
    ) -> None:
        self.engine, self.container, self.credentials = engine, container, tuple(credentials)
        self.log: Log = log or logging.getLogger(__name__)
        self._client: APIClient | None = None
        self._id: str | None = None
        self._stream: ContainerStream | None = None
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
        """Pull the image where it is missing, create the container, hold its standard input, start it.

        Raises:
            InputError: the engine refuses the image or the container, or can't see a local store.
            UnavailableError: engine or registry don't answer.
        """
        from airflow_model_deploy.engine.containers import connect, ensure_image

        self._request, self._options = request, store_options
        self._client = client = connect(self.engine)
        try:
            ensure_image(client, self.container.image, self.credentials, log=self._tell)
            sweep(client)
            self._run(client, request)
        except ModelDeployError:
            self._remove()
            raise
        with suppress(OSError):  # it ended at once; its last line will say why
            if self._stream:
                self._stream.send(first_line(request, store_options, connections))
        return {"container": self._id}

    def wait(self) -> StepResult:
        """Pass on the step's lines as they come; the container is removed at the end."""
        from airflow_model_deploy.engine.containers import engine_errors

        client, request = self._client, self._request
        if client is None or request is None or self._id is None or self._stream is None:
            raise RuntimeError("wait() needs start()")
        last = ""
        try:
            for line in _lines(self._stream):
                last = line or last
                pass_on(self.log, line)
            with engine_errors(f"container {self._id[:12]} of the step"):
                code = int(client.wait(self._id)["StatusCode"])
                out_of_memory = bool(client.inspect_container(self._id)["State"]["OOMKilled"])
        except UnavailableError as error:
            return ended_without_result(request, str(error), permanent=False)
        finally:
            self._remove()
        found = read_result(request, self._options)
        return found or ended_without_result(
            request, self._ending(code, last, out_of_memory), permanent=code in PERMANENT_EXITS
        )

    def cancel(self) -> None:
        """End the container and everything in it; also while `wait` runs."""
        from airflow_model_deploy.engine.containers import connect, engine_errors

        if self._id is None:
            return
        self._cancelled = True
        # A client of its own: the other one may be in the middle of a call that this one interrupts. Where the
        # engine is gone, the lifeline ends the step as soon as the connection does.
        with suppress(ModelDeployError), engine_errors(f"container {self._id[:12]} of the step"):
            connect(self.engine).kill(self._id)

    def _run(self, client: APIClient, request: StepRequest) -> None:
        from airflow_model_deploy.engine.containers import ContainerStream, engine_errors

        described = describe(self.container, request, self.engine, client)
        try:
            with engine_errors(f"a container of {self.container.image} for step {request.step}"):
                self._id = client.create_container(**described)["Id"]
                streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
                self._stream = ContainerStream(client.attach_socket(self._id, params=streams))
                client.start(self._id)
        except UnavailableError as error:
            # The engine says 500 to what no later try will mend: a GPU that it has none of, a program that isn't there.
            if "could not select device driver" in str(error) or "executable file not found" in str(error):
                raise InputError(
                    f"a container of {self.container.image} for step {request.step}",
                    found=str(error),
                    wanted="what the engine has, and an image that `model-deploy image worker` made",
                ) from error
            raise

    def _tell(self, line: str) -> None:
        self.log.info("%s", line)

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
        if self._stream is not None:
            self._stream.close()
        if self._client is not None and self._id is not None:
            remove(self._client, self._id)


def _lines(stream: ContainerStream) -> Iterator[str]:
    """Yield lines of both streams, each whole; what redraws itself (a bar) counts as lines, too."""
    pending: dict[int, bytes] = {}
    while (piece := stream.receive()) is not None:
        kind, block = piece
        *whole, rest = (pending.get(kind, b"") + block).replace(b"\r", b"\n").split(b"\n")
        if len(rest) > _MOST_OF_A_LINE:
            whole, rest = [*whole, rest], b""
        pending[kind] = rest
        yield from (line.decode(errors="replace").rstrip() for line in whole)
    yield from (rest.decode(errors="replace").rstrip() for rest in pending.values() if rest)
