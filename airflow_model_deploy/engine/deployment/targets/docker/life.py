"""Looks at a service on a container engine, finds it by its name, and ends it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import Engine, Limits, connect, engine_errors, tail
from airflow_model_deploy.engine.deployment.desired import Desired, parse_desired
from airflow_model_deploy.engine.deployment.targets.docker.front import Front, address_of
from airflow_model_deploy.engine.deployment.targets.docker.objects import (
    fetch_file,
    find_container,
    running,
    server_containers,
    why_ended,
)
from airflow_model_deploy.engine.deployment.targets.docker.servers import Servers
from airflow_model_deploy.engine.deployment.targets.docker.service import (
    ENDED,
    FRONT,
    ROLE,
    SERVICE,
    STATE_FOLDER,
    Service,
)
from airflow_model_deploy.engine.errors import InputError, ModelDeployError

if TYPE_CHECKING:
    from docker import APIClient

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class ContainerStatus:
    """One revision's container: what the engine and the front say of it."""

    revision: str
    container: str
    image: str
    state: str
    public: bool
    exits: int
    reason: str | None


@dataclass(frozen=True)
class DockerStatus:
    """What is wanted of a service and what runs.

    Args:
        live: the revision that should serve.
        previous: where a rollback leads.
        candidate: a revision under check.
        url: the public URL.
        serving: whether the live revision takes the public requests.
        front: the front's state, as the engine says; None where there is none.
        processes: the containers of revisions, stopped ones included.
        error: the last words of a front that doesn't run and should.
    """

    live: str | None
    previous: str | None
    candidate: str | None
    url: str
    serving: bool
    front: str | None
    processes: tuple[ContainerStatus, ...]
    error: str | None


def status(service: Service) -> DockerStatus:
    """Look at a service; changes nothing.

    Raises:
        UnavailableError: the engine doesn't answer.
    """
    client = connect(service.engine)
    try:
        front = find_container(client, service.name)
        runs = front is not None and running(front)
        desired = Desired() if front is None else _written(client, service.name)
        seen = Front(service, client).status()["processes"] if runs else {}
        processes = tuple(
            _container_status(client, service, revision, seen.get(revision, {}), desired)
            for revision in sorted(server_containers(client, service.name))
        )
        return DockerStatus(
            live=desired.live,
            previous=desired.previous,
            candidate=desired.candidate,
            url=service.url,
            serving=any(one.revision == desired.live and one.public for one in processes),
            front=None if front is None else str(front["State"]["Status"]),
            processes=processes,
            error=None
            if runs or not desired.live
            else f"the front doesn't run: {tail(client, service.name, 3)}",
        )
    finally:
        client.close()


def stop(service: Service) -> None:
    """End a service: accepted requests are answered, then every container ends; none is removed.

    Raises:
        UnavailableError: somebody else is changing the service, or the engine doesn't answer.
    """
    client = connect(service.engine)
    try:
        front = find_container(client, service.name)
        if front is None:
            return
        service.refuse_foreign(f"container {service.name}", front["Config"]["Labels"], FRONT)
        asked = Front(service, client)
        if running(front):
            try:
                _end(asked)
            except ModelDeployError:
                now = find_container(client, service.name)
                if now is None or (running(now) and now["RestartCount"] == front["RestartCount"]):
                    raise
                asked.stop()
        elif front["State"]["Status"] not in ENDED:
            # One that ends again and again can't be asked, and must not come back.
            asked.stop()
        Servers(service, client).end_unwanted(())
    finally:
        client.close()


def _end(front: Front) -> None:
    with front.locked():
        document = front.read()
        if document.get("live") or document.get("candidate"):
            ended = {**document, "live": None, "candidate": None, "unconfirmed": None}
            front.write(document["generation"], {k: v for k, v in ended.items() if k != "generation"})
        Servers(front.service, front.client).end_unwanted(())
        # The last: what was accepted came through its network.
        front.stop()


def find_service(engine: Engine, name: str) -> Service | None:
    """Return the service `name` of an engine, as it was described when it was last deployed; None where it never was.

    Raises:
        InputError: a container of that name is somebody else's, or its decision can't be read.
        UnavailableError: the engine doesn't answer.
    """
    client = connect(engine)
    try:
        found = find_container(client, name)
        labels = (found or {}).get("Config", {}).get("Labels") or {}
        if found is None or (labels.get(SERVICE), labels.get(ROLE)) != (name, FRONT):
            return None
        document = _document(client, name)
        if not document:
            return None
        host, port = address_of(found)
        return Service(
            name=name,
            engine=engine,
            port=port,
            host=host,
            limits=Limits(**document["limits"]),
            ready_timeout_s=document["ready_timeout_seconds"],
            drain_s=document["drain_seconds"],
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"decision of {name}",
            found=repr(error),
            wanted="what a deployment wrote",
            remedy="Deploy again.",
        ) from error
    finally:
        client.close()


def service_names(engine: Engine) -> list[str]:
    """Return the names of the services on an engine."""
    client = connect(engine)
    try:
        with engine_errors("containers of the engine"):
            listed = client.containers(all=True, filters={"label": [SERVICE, f"{ROLE}={FRONT}"]})
        return sorted(str(one["Labels"][SERVICE]) for one in listed)
    finally:
        client.close()


def _container_status(
    client: APIClient, service: Service, revision: str, seen: dict[str, Any], desired: Desired
) -> ContainerStatus:
    name = service.container(revision)
    found = find_container(client, name)
    state = {"Status": "gone"} if found is None else found["State"]
    return ContainerStatus(
        revision=revision,
        container=name,
        image="" if found is None else str(found["Config"]["Image"]),
        # What runs is what it says of itself; before it says anything, it is starting.
        state=seen.get("state", "starting") if state["Status"] == "running" else str(state["Status"]),
        public=bool(seen.get("public")),
        exits=0 if found is None else int(found["RestartCount"]),
        reason=why_ended(client, found) if found is not None and revision in desired.wanted else None,
    )


def _written(client: APIClient, name: str) -> Desired:
    document = _document(client, name)
    return parse_desired(document, f"the front of {name}") if document else Desired()


def _document(client: APIClient, name: str) -> dict[str, Any]:
    """The decision in the service's volume, which can be read without a front that runs."""
    content = fetch_file(client, name, f"{STATE_FOLDER}/desired.json", _MOST_BYTES)
    try:
        document = {} if content is None else json.loads(content)
    except ValueError as error:
        document = str(error)
    if not isinstance(document, dict):
        raise InputError(
            f"desired.json in volume {name}",
            found=document,
            wanted="the decision that a deployment wrote",
            remedy="Repair the file, or remove the container and the volume of that name and deploy again.",
        )
    return document
