"""The container in which an image is blessed: its start, its end, and how it ended. Asks it nothing."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any, Self

from airflow_model_deploy.engine.containers import (
    engine_errors,
    find_image,
    host_config,
    require_limits,
    tail,
)
from airflow_model_deploy.engine.errors import GateError, InputError, ModelDeployError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from docker import APIClient

    from airflow_model_deploy.engine.containers import Limits

ROLE_LABEL = "io.model-deploy.role"
_ROLE = "blessing"
_SETTLE_S = 2.0
_LEFT_OVER_S = 3600
_KILLED = 137


class BlessingContainer:
    """A running container of an image; gone when the block is left.

    Its server's standard input is our end of a connection: should this process be killed, it ends by itself. What
    is left of it then is removed by the next blessing.

    Args:
        client: of the engine.
        image: by digest or id, on the engine.
        limits: what it may use.
    """

    def __init__(self, client: APIClient, image: str, limits: Limits) -> None:
        self._client, self.image, self._limits = client, image, limits
        self.id = ""
        self._lifeline: Any = None

    def __enter__(self) -> Self:
        self._remove_left_overs()
        found = find_image(self._client, self.image) or {}
        command = [*(found.get("Config", {}).get("Cmd") or ()), "--lifeline"]
        with engine_errors(f"a container of image {self.image} can't be made"):
            made = self._client.create_container(
                self.image,
                command,
                name=f"model-deploy-{_ROLE}-{secrets.token_hex(6)}",
                labels={ROLE_LABEL: _ROLE},
                stdin_open=True,
                host_config=host_config(self._client, self._limits),
            )
        self.id = str(made["Id"])
        self._start(made.get("Warnings"))
        return self

    def _start(self, warnings: Sequence[str] | None) -> None:
        try:
            with engine_errors(f"container {self.id} of image {self.image}"):
                inspected = self._client.inspect_container(self.id)
            require_limits(inspected, self._limits, warnings)
        except BaseException:
            self._remove()
            raise
        try:
            with engine_errors(f"image {self.image} does not start"):
                self._lifeline = self._client.attach_socket(self.id, params={"stdin": 1, "stream": 1})
                self._client.start(self.id)
        except InputError as e:
            self._remove()
            raise GateError(e.thing, found=e.found, wanted="a running server") from e
        except BaseException:
            self._remove()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def last_words(self) -> str:
        """The last lines that it wrote."""
        return tail(self._client, self.id)

    def require_alive(self) -> None:
        """Raise GateError, with the reason, where it has ended or is ending."""
        deadline = time.monotonic() + _SETTLE_S
        while True:
            with engine_errors(f"container {self.id} of image {self.image}"):
                state = self._client.inspect_container(self.id)["State"]
            if state["OOMKilled"] or not state["Running"]:
                raise self._end(state)
            if time.monotonic() > deadline:
                return
            time.sleep(0.1)

    def _end(self, state: dict[str, Any]) -> GateError:
        words = f"Its last words: {self.last_words()}"
        memory = f"{self._limits.memory_bytes / 2**20:.0f} MiB"
        if state["OOMKilled"]:
            return GateError(
                f"image {self.image} ran out of memory (OOM)",
                found=f"killed at its limit of {memory}",
                wanted="a server that fits",
                remedy=f"Raise the limit or compress the model further. {words}",
            )
        killed = f", killed, as when {memory} are too little" if state["ExitCode"] == _KILLED else ""
        return GateError(
            f"image {self.image} ended instead of serving",
            found=f"exit code {state['ExitCode']}{killed}{state['Error'] and ': '}{state['Error']}",
            wanted="a running server",
            remedy=words,
        )

    def _remove(self) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                self._lifeline._response.close()  # noqa: SLF001 - closing the socket alone leaves it open
            with contextlib.suppress(OSError):
                self._lifeline.close()
        with contextlib.suppress(ModelDeployError), engine_errors(f"container {self.id}"):
            self._client.remove_container(self.id, force=True, v=True)

    def _remove_left_overs(self) -> None:
        """Of processes that were killed: their servers have ended, since nobody held their standard input."""
        filters = {"label": f"{ROLE_LABEL}={_ROLE}", "status": ["exited", "created"]}
        with contextlib.suppress(ModelDeployError), engine_errors("the containers of earlier blessings"):
            for found in self._client.containers(all=True, filters=filters):
                if time.time() - found["Created"] > _LEFT_OVER_S:
                    self._client.remove_container(found["Id"], force=True, v=True)
