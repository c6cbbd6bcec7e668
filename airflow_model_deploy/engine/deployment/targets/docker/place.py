"""A service on a container engine as the blue/green strategy sees it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import tail, tunnel
from airflow_model_deploy.engine.deployment.desired import Desired, parse_desired
from airflow_model_deploy.engine.deployment.targets.docker.front import Front
from airflow_model_deploy.engine.deployment.targets.docker.objects import (
    fetch_file,
    find_container,
    why_ended,
)
from airflow_model_deploy.engine.deployment.targets.docker.reach import way_in
from airflow_model_deploy.engine.deployment.targets.docker.servers import Servers
from airflow_model_deploy.engine.deployment.targets.docker.service import (
    PORT,
    SERVABLE_FOLDER,
    Service,
    settings,
)
from airflow_model_deploy.engine.errors import InputError, IntegrityError, RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from docker import APIClient

_MANIFEST = "servable.json"
_MOST_BYTES = 256 << 20


class DockerPlace:
    """A service of an engine: the front carries out what is written, the engine runs the containers.

    Args:
        service: the service.
        client: of its engine.
        scratch: an empty folder for what checks compare with.
        log: takes lines.
    """

    def __init__(
        self, service: Service, client: APIClient, scratch: Path, log: Callable[[str], None]
    ) -> None:
        self.service, self.client, self.scratch, self.log = service, client, scratch, log
        self.front, self.servers = Front(service, client), Servers(service, client)
        # What each server that was seen last says that it serves.
        self._digests: dict[str, str | None] = {}

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def url(self) -> str:
        """The public URL."""
        return self.service.url

    def read(self) -> Desired:
        """Return the decision as the front has it."""
        document = self.front.read()
        # A front that was never told anything has no schema either.
        return (
            parse_desired(document, f"the front of {self.name}")
            if "schema_version" in document
            else Desired()
        )

    def write(self, before: Desired, **changes: Any) -> Desired:
        """Replace the decision if it is still the one that was read."""
        desired = replace(before, **changes, host=self.service.host, port=self.service.port)
        found = find_container(self.client, self.service.container(desired.live)) if desired.live else None
        # One that was removed keeps nobody from deciding what comes next.
        if desired.live and found is not None:
            # Before it gets traffic: from then on the engine must bring it back without us.
            self.servers.last(desired.live, lasting=True, found=found)
        self.front.write(before.generation, {**desired.to_json(), **settings(self.service, found)})
        return replace(desired, generation=before.generation + 1)

    def missing(self, revision: str) -> str | None:
        """Return which revisions have a container if this one has none."""
        return self.servers.missing(revision)

    def release(self, revision: str) -> Path:
        """Fetch servable.json and the golden requests out of the revision's container."""
        folder = self.scratch / revision
        if not folder.exists():
            files = self._judged_by(self.service.container(revision))
            for path, content in files.items():
                target = folder / "servable" / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        return folder

    def _judged_by(self, container: str) -> dict[str, bytes]:
        manifest = self._fetch(container, _MANIFEST)
        files = {_MANIFEST: manifest}
        try:
            document = json.loads(manifest)
            golden = document.get("golden")
            digests = {str(one["path"]): str(one["sha256"]) for one in document["files"]}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{_MANIFEST} in container {container}", found=repr(error), wanted="a servable's"
            ) from error
        if golden is not None:
            files[golden] = self._fetch(container, golden)
            _refuse_other(container, golden, hashlib.sha256(files[golden]).hexdigest(), digests)
        return files

    @contextlib.contextmanager
    def candidate(self, desired: Desired, revision: str) -> Iterator[str]:
        """Start the revision, wait until it has reported to the front, and open a way to its private port."""
        # What an interrupted call left behind would need memory beside it.
        self.servers.end_unwanted(desired.wanted)
        self.servers.start(revision, lasting=revision == desired.live)
        self._wait(
            f"revision {revision}",
            revision,
            lambda processes: processes.get(revision, {}).get("state") == "ready",
        )
        with tunnel(self.client, self.service.container(revision), PORT, log=self.log) as url:
            yield url

    def wait_public(self, desired: Desired) -> None:
        """Wait until the live revision takes the front's socket, and no other has it."""
        live = str(desired.live)
        self.servers.start(live, lasting=True)
        self._wait(
            f"public port of revision {live}",
            live,
            lambda processes: [name for name, one in processes.items() if one["public"]] == [live],
        )

    @contextlib.contextmanager
    def public(self, desired: Desired) -> Iterator[str]:
        """Give a way to the public socket, once it is known that the live revision's own servable accepts there."""
        live = str(desired.live)
        manifest = (self.release(live) / "servable" / _MANIFEST).read_bytes()
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        if self._digests.get(live) != digest:
            raise RolloutError(
                f"revision {live} at the public port of {self.name}",
                found=f"a server of the servable {self._digests.get(live)}",
                wanted=digest,
                remedy="End what reports to the front in its name.",
            )
        with way_in(self.service, self.client, self.log) as url:
            yield url

    def wait_gone(self, desired: Desired, revision: str) -> None:
        """End the revision, and the front with the last one; a container that serves no rollback is removed."""
        self.servers.end(revision)
        if revision not in (*desired.wanted, desired.previous):
            self.servers.remove(revision)
        if not desired.wanted:
            self.front.stop()

    def settle(self, desired: Desired) -> list[str]:
        """End what isn't wanted; remove every container but those of the live and the previous revision."""
        self.servers.end_unwanted(desired.wanted)
        return self.servers.prune([*desired.wanted, *([desired.previous] if desired.previous else [])])

    def _wait(self, what: str, revision: str, seen: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + self.service.ready_timeout_s
        sequence = -1
        while time.monotonic() < deadline:
            status = self.front.status(after=sequence)
            sequence = status["sequence"]
            self._digests = {name: one.get("digest") for name, one in status["processes"].items()}
            if seen(status["processes"]):
                return
            found = find_container(self.client, self.service.container(revision))
            ended = "no container" if found is None else why_ended(self.client, found)
            if ended is not None:
                raise RolloutError(
                    f"revision {revision}", found=ended, wanted="a server that starts and stays"
                )
        container = self.service.container(revision)
        raise RolloutError(
            f"{what} of {self.name}",
            found=f"its last words: {tail(self.client, container, 5)}",
            wanted=f"within {self.service.ready_timeout_s:g} s",
            remedy=f"See `docker logs {container}`.",
        )

    def _fetch(self, container: str, path: str) -> bytes:
        content = fetch_file(self.client, container, f"{SERVABLE_FOLDER}/{path}", _MOST_BYTES)
        if content is None:
            raise RolloutError(
                f"servable of container {container}",
                found=f"no {path}",
                wanted="an image that holds a servable",
            )
        return content


def _refuse_other(container: str, path: str, found: str, digests: dict[str, str]) -> None:
    """The path becomes a file's name here: it must be one that the servable lists, and stay inside."""
    if {"", ".", ".."} & set(path.split("/")) or digests.get(path) != found:
        raise IntegrityError(
            f"{path} of the servable in container {container}",
            found=found,
            wanted=digests.get(path, "not listed"),
        )
