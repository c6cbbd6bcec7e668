"""The containers of a service's revisions: made, started, ended and removed; knows no traffic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import engine_errors, find_image, host_config, require_limits
from airflow_model_deploy.engine.deployment.targets.docker.objects import (
    find_container,
    running,
    server_containers,
)
from airflow_model_deploy.engine.deployment.targets.docker.service import (
    DRAIN_OPTION,
    ENDED,
    IMAGE,
    KIND,
    PORT,
    REVISION,
    SERVABLE_FOLDER,
    SERVER,
    STATE_FOLDER,
    Service,
)
from airflow_model_deploy.engine.errors import InputError, RolloutError

if TYPE_CHECKING:
    from collections.abc import Collection

    from docker import APIClient

_DOCKER_GRACE_S = 5


class Servers:
    """The servers of a service, on an engine that was connected to."""

    def __init__(self, service: Service, client: APIClient) -> None:
        self.service, self.client = service, client

    def ensure(self, image: str, revision: str) -> str | None:
        """See that a container of the image exists, with the service's limits; one that runs goes on.

        Returns:
            What is other than the service asks for and stays so; None if nothing is.

        Raises:
            InputError: something else has its name, or the engine drops the limits.
            UnavailableError: the engine can't give a container that runs these limits now.
        """
        name = self.service.container(revision)
        found = find_container(self.client, name)
        if found is not None:
            self.service.refuse_foreign(f"container {name}", found["Config"]["Labels"], SERVER)
            if self._fits(found):
                return None
            if running(found):
                self._limit(name, found)
                kept = found["Config"]["Cmd"] != self._command(revision)
                return f"container {name} keeps the options that it was started with" if kept else None
            self._remove(found["Id"])
        with engine_errors(f"container {name}"):
            made = self.client.create_container(
                image,
                name=name,
                command=self._command(revision),
                labels=self.service.labels(SERVER, revision=revision, image=image),
                stop_timeout=self._stop_timeout,
                host_config=host_config(
                    self.client,
                    self.service.limits,
                    binds={self.service.name: {"bind": STATE_FOLDER, "mode": "rw"}},
                    network="none",
                ),
            )
            inspected = self.client.inspect_container(made["Id"])
        try:
            require_limits(inspected, self.service.limits, made.get("Warnings"))
        except InputError:
            self._remove(made["Id"])
            raise
        return None

    def start(self, revision: str, *, lasting: bool) -> None:
        """Start a revision that doesn't run; `lasting`: the engine starts it again whenever it ends by itself."""
        name = self.service.container(revision)
        found = find_container(self.client, name)
        if found is None:
            raise RolloutError(
                f"revision {revision} of {self.service.name}",
                found=f"no container {name}: it was removed",
                wanted="its container, stopped or not",
                remedy="Deploy its image again.",
            )
        if not running(found):
            self.last(revision, lasting=lasting, found=found)
            with engine_errors(f"start of container {name}"):
                self.client.start(name)
        elif lasting:
            self.last(revision, lasting=True, found=found)

    def last(self, revision: str, *, lasting: bool, found: dict[str, Any]) -> None:
        """Say whether the engine keeps a revision running, after its own restart too."""
        policy = "unless-stopped" if lasting else "no"
        if (found["HostConfig"]["RestartPolicy"]["Name"] or "no") != policy:
            with engine_errors(f"container {self.service.container(revision)}"):
                self.client.update_container(
                    self.service.container(revision), restart_policy={"Name": policy, "MaximumRetryCount": 0}
                )

    def missing(self, revision: str) -> str | None:
        """Which revisions there are if this one isn't among them."""
        there = server_containers(self.client, self.service.name)
        return None if revision in there else str(sorted(there) or "none")

    def end(self, revision: str) -> None:
        """End a revision, if it runs: what it accepted is answered."""
        name = self.service.container(revision)
        found = find_container(self.client, name)
        if found is not None and found["State"]["Status"] not in ENDED:
            with engine_errors(f"container {name}"):
                # Its own: the engine's answer comes when it has ended, and must be waited for as long.
                self.client.stop(name, timeout=found["Config"].get("StopTimeout") or self._stop_timeout)

    def end_unwanted(self, wanted: Collection[str]) -> None:
        """End every revision but these."""
        for revision, listed in server_containers(self.client, self.service.name).items():
            if revision not in wanted and listed["State"] not in ENDED:
                self.end(revision)

    def prune(self, kept: Collection[str]) -> list[str]:
        """Remove the containers of every revision but these, and what images they leave behind."""
        there = server_containers(self.client, self.service.name)
        return [what for revision in there if revision not in kept for what in self.remove(revision)]

    def remove(self, revision: str) -> list[str]:
        """Remove a revision's container, and the image that it leaves behind; return what went, in words."""
        name = self.service.container(revision)
        found = find_container(self.client, name)
        if found is None:
            return []
        self._remove(found["Id"])
        return [f"container {name}", *self._remove_image(found["Config"]["Labels"].get(IMAGE, ""))]

    def _fits(self, found: dict[str, Any]) -> bool:
        command = self._command(found["Config"]["Labels"][REVISION])
        return bool(found["Config"]["Cmd"] == command and self._is_limited(found))

    def _is_limited(self, found: dict[str, Any]) -> bool:
        return all(found["HostConfig"][name] == value for name, value in self._limits.items())

    @property
    def _limits(self) -> dict[str, int]:
        limits = self.service.limits
        return {
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,
            "NanoCpus": round(limits.cpus * 1e9),
            "PidsLimit": limits.pids,
        }

    @property
    def _stop_timeout(self) -> int:
        return math.ceil(self.service.drain_s) + _DOCKER_GRACE_S

    def _limit(self, name: str, found: dict[str, Any]) -> None:
        """Give a container that runs the service's limits."""
        if self._is_limited(found):
            return
        with engine_errors(f"limits of container {name}"):
            # The client library's own function knows neither cpus nor processes.
            url = self.client._url("/containers/{0}/update", name)  # noqa: SLF001
            self.client._result(self.client._post_json(url, data=self._limits))  # noqa: SLF001

    def _command(self, revision: str) -> list[str]:
        return [
            *("--servable", SERVABLE_FOLDER),
            *("--host", "127.0.0.1", "--port", str(PORT)),
            *("--front", f"{STATE_FOLDER}/front.sock", "--revision", revision),
            *(DRAIN_OPTION, f"{self.service.drain_s:g}"),
        ]

    def _remove(self, container: str) -> None:
        from docker.errors import NotFound

        with engine_errors(f"container {container}"):
            try:
                self.client.remove_container(container, force=True)
            except NotFound:
                return

    def _remove_image(self, reference: str) -> list[str]:
        """Remove an image that was pulled for one revision: by digest, so without a tag that somebody gave it."""
        from docker.errors import APIError

        found = find_image(self.client, reference) if "@" in reference else None
        labels = (found or {}).get("Config", {}).get("Labels") or {}
        if found is None or found.get("RepoTags") or labels.get(KIND) != "model":
            return []
        with engine_errors(f"image {reference}"):
            try:
                self.client.remove_image(reference)
            except APIError as error:
                if error.is_server_error():
                    raise
                # Another container is made of it.
                return []
        return [f"image {reference}"]
