"""How a container is confined: what it may use, and what it may not do. One place for every container we start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers.engine import engine_errors
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docker import APIClient

_BOUNDED_LOGS = ("json-file", "local")
_LEAST_MEMORY = 6 << 20  # what the engine accepts at least
_LOGGED = {"max-size": "10m", "max-file": "3"}  # else a chatty server fills the host's disk
_TMPFS = {"/tmp": "rw,noexec,nosuid,nodev,size=64m"}  # noqa: S108 - inside the container


@dataclass(frozen=True)
class Limits:
    """What a container may use.

    Args:
        memory_bytes: of all its processes, files in /tmp included; swap comes out of it: there is none.
        cpus: cores' worth of time.
        pids: processes and threads.
    """

    memory_bytes: int
    cpus: float
    pids: int = 128

    def __post_init__(self) -> None:
        if self.memory_bytes < _LEAST_MEMORY:
            raise InputError(
                "a container's memory", found=self.memory_bytes, wanted=f">= {_LEAST_MEMORY} bytes"
            )
        if not self.cpus >= 0.01 or self.pids < 1:
            raise InputError("a container's cpus and pids", found=self, wanted="cpus >= 0.01, pids >= 1")


def host_config(
    client: APIClient,
    limits: Limits,
    *,
    binds: Mapping[str, Mapping[str, str]] | None = None,
    ports: Mapping[str, Any] | None = None,
    network: str = "none",
    restart: str | None = None,
) -> dict[str, Any]:
    """The host side of `client.create_container`: read-only, without capabilities, bounded, without a network.

    The user is the image's own.

    Args:
        client: of the engine.
        limits: what it may use.
        binds: volume or host path -> {"bind": path inside, "mode": "rw" or "ro"}.
        ports: "8080/tcp" -> port, or (address, port), of the host; needs a network.
        network: "none", "bridge", or a network's name.
        restart: "unless-stopped", "on-failure"; None: never.
    """
    with engine_errors("the settings of a container"):
        driver = str(client.info().get("LoggingDriver"))
        config = client.create_host_config(
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=limits.pids,
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,  # equal to mem_limit: no swap
            nano_cpus=round(limits.cpus * 1e9),
            tmpfs=dict(_TMPFS),
            network_mode=network,
            binds={name: dict(bind) for name, bind in (binds or {}).items()} or None,
            port_bindings=dict(ports or {}) or None,
            log_config={"Type": driver, "Config": dict(_LOGGED)} if driver in _BOUNDED_LOGS else None,
            restart_policy=None if restart is None else {"Name": restart},
        )
    return dict(config)


def require_limits(inspected: Mapping[str, Any], limits: Limits, warnings: Sequence[str] | None = ()) -> None:
    """Refuse a container whose limits the engine has discarded; call it before the container is started.

    An engine without the right to set them (rootless without delegation, memory control off) makes the container
    all the same, and only warns.

    Args:
        inspected: what `client.inspect_container` returned.
        limits: what was asked for.
        warnings: what `client.create_container` returned as "Warnings".

    Raises:
        InputError: memory, processor time or the number of processes isn't limited as asked for.
    """
    there = inspected["HostConfig"]
    asked = {
        "memory": ("Memory", limits.memory_bytes),
        "cpu": ("NanoCpus", round(limits.cpus * 1e9)),
        "pids": ("PidsLimit", limits.pids),
    }
    lost = [name for name, (field, value) in asked.items() if (there.get(field) or 0) != value]
    if lost:
        said = f"; the engine says: {' '.join(warnings)}" if warnings else ""
        raise InputError(
            f"the limits of container {inspected.get('Name', '').lstrip('/') or inspected.get('Id')}",
            found=f"{', '.join(f'{asked[name][0]} is {there.get(asked[name][0])}' for name in lost)}{said}",
            wanted=", ".join(f"{asked[name][0]} {asked[name][1]}" for name in lost),
            remedy=f"Let the engine use the cgroup controllers {', '.join(lost)}: on its kernel's command line"
            " (cgroup_enable=memory); for a rootless engine with cgroup v2 and the unit's Delegate=cpu cpuset io"
            " memory pids. `docker info` shows what is missing",
        )
