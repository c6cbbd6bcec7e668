"""The container of a step: what the engine is asked for, and what is left of those whose task was killed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_model_deploy.engine.errors import InputError, ModelDeployError
from airflow_model_deploy.runners.base import step_environment

if TYPE_CHECKING:
    from docker import APIClient

    from airflow_model_deploy.engine.containers import Engine
    from airflow_model_deploy.engine.steps import StepRequest

LABEL = "io.model-deploy.step"
_LEFTOVER_SECONDS = 3600


@dataclass(frozen=True)
class Container:
    """What a step's container is made of.

    Args:
        image: a worker image.
        memory_bytes: its limit; None: none.
        cpus: likewise; numeric libraries start as many threads.
        gpus: how many of the engine's; -1: all of them.
        network: its network.
        mounts: folders of the engine's machine that it sees, read only, at the same path.
        environment: variables. No secrets: an engine shows them to whoever may look at a container.
    """

    image: str
    memory_bytes: int | None = None
    cpus: float | None = None
    gpus: int = 0
    network: str = "bridge"
    mounts: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def describe(container: Container, request: StepRequest, engine: Engine, client: APIClient) -> dict[str, Any]:
    """Return the arguments of create_container.

    Raises:
        InputError: a local store and an engine elsewhere.
    """
    from docker.types import Mount

    store = local_store(request.store, engine.address)
    # Mounts, not binds: a folder that isn't there is refused, instead of made, empty and root's.
    mounts = [Mount(path, path, type="bind", read_only=True) for path in container.mounts]
    if store:
        mounts.append(Mount(store, store, type="bind"))
    return {
        "image": container.image,
        "command": ["run", request.step, "--lifeline"],
        "stdin_open": True,
        # Whose the files of a mounted store are: those that the task itself would have written.
        "user": f"{os.getuid()}:{os.getgid()}" if store else None,
        "environment": step_environment(container.cpus, container.environment),
        "labels": {LABEL: request.step},
        "host_config": client.create_host_config(mounts=mounts, **_limits(container)),
    }


def local_store(url: str, engine: str) -> str | None:
    """Return the folder of a file:// store, which only an engine on this machine can mount.

    Raises:
        InputError: the engine is on another machine.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        return None
    if not engine.startswith(("unix://", "npipe://", "http+docker://")):
        raise InputError(
            "the store can't be reached from the container",
            found=f"{url}, and an engine at {engine}",
            wanted="a store that both machines reach, such as s3://",
            remedy="Set [model_deploy] store, or `store` of the operator.",
        )
    folder = Path(unquote(parts.path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the store {url}", found=str(error), wanted="a folder that can be written"
        ) from error
    return str(folder)


def sweep(client: APIClient) -> None:
    """Remove the containers of tasks that were killed before they could."""
    from airflow_model_deploy.engine.containers import engine_errors

    with engine_errors("containers of earlier steps"):
        left = client.containers(all=True, filters={"label": LABEL, "status": ["created", "exited", "dead"]})
    for one in left:
        with suppress(ModelDeployError), engine_errors(one["Id"]):  # another task may be removing it
            found = client.inspect_container(one["Id"])
            ended = found["State"]["FinishedAt"]
            since = found["Created"] if ended.startswith("0001") else ended
            # The one whose task is still reading its exit code is younger.
            age = datetime.now(UTC) - datetime.fromisoformat(since[:19]).replace(tzinfo=UTC)
            if age.total_seconds() > _LEFTOVER_SECONDS:
                remove(client, one["Id"])


def remove(client: APIClient, container: str) -> None:
    """Remove a container, running or not, if the engine can be reached."""
    from airflow_model_deploy.engine.containers import engine_errors

    with suppress(ModelDeployError), engine_errors(container):
        client.remove_container(container, force=True, v=True)


def _limits(container: Container) -> dict[str, Any]:
    options: dict[str, Any] = {
        "network_mode": container.network,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "init": True,
        # Its processes share tensors there; the engine's own 64 MB end a data loader by SIGBUS.
        "shm_size": container.memory_bytes // 2 if container.memory_bytes else "1g",
    }
    if container.memory_bytes:
        options |= {"mem_limit": container.memory_bytes, "memswap_limit": container.memory_bytes}
    if container.cpus:
        options["nano_cpus"] = round(container.cpus * 1e9)
    if container.gpus:
        from docker.types import DeviceRequest

        options["device_requests"] = [DeviceRequest(count=container.gpus, capabilities=[["gpu"]])]
    return options
