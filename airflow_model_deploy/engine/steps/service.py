"""A running service as the steps and the command line see it, wherever it runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import Engine
from airflow_model_deploy.engine.deployment import docker, host, kubernetes
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import read_golden
from airflow_model_deploy.engine.probing import Comparison, GoldenSet, check_server

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow_model_deploy.engine.deployment import Deployment


def golden_check(url: str, release: Path) -> Comparison:
    """Ask a server the golden requests of an installed release."""
    name, golden = released_golden(release)
    return check_server(url, name, golden)


def released_golden(release: Path) -> tuple[str, GoldenSet]:
    """Return the name of a release's model and its golden requests; `release` holds its servable."""
    return read_golden(release / "servable")


def existing_service(place: str, name: str, *, root: str | None, engine: Engine) -> Any:
    """Return a service that was deployed, on the host below `root` or on the engine."""
    service = _find(place, name, root=root, engine=engine)
    if service is None:
        known = _known_on_host(root) if place == "host" else docker.service_names(engine)
        raise InputError(
            f"there is no service {name!r} {f'below {root}' if place == 'host' else 'on the Docker engine'}",
            found=known or "no services",
            wanted="a service that was deployed",
            remedy="Correct its name and its place, or deploy it first.",
        )
    return service


def required_root(root: Path | str | None) -> Path:
    """Return the folder of a host's services; InputError where none was named."""
    if not root:
        raise InputError("no folder is named for the host's services", found="root: none", wanted="its path")
    return Path(root)


def rolled_back(place: str, service: Any, attempt: str | None, log: Any) -> Deployment:
    """Roll a service back."""
    found: Deployment = _room(place).rollback(service, check=golden_check, log=log, attempt=attempt)
    return found


def reached(place: str, service: Any) -> AbstractContextManager[str]:
    """Give the base URL at which this process reaches the service's public side."""
    way: AbstractContextManager[str] = _room(place).reach(service)
    return way


def live_revision(place: str, service: Any) -> str | None:
    """Return the revision that should serve."""
    live: str | None = _room(place).status(service).live
    return live


def service_status(
    root: Path | str | None,
    name: str,
    *,
    place: str = "host",
    engine: Engine | None = None,
    cluster: kubernetes.Cluster | None = None,
) -> dict[str, Any]:
    """Return what a place serves, as JSON; {} where the service was never deployed."""
    if place == "kubernetes":
        found = kubernetes.status(_required(cluster), name)
        return {} if found is None else asdict(found)
    service = _find(place, name, root=root, engine=engine)
    return {} if service is None else {**asdict(_room(place).status(service)), "port": service.port}


def stop_service(
    root: Path | str | None,
    name: str,
    *,
    place: str = "host",
    engine: Engine | None = None,
    cluster: kubernetes.Cluster | None = None,
) -> None:
    """End a service, if there is one; what is installed stays."""
    if place == "kubernetes":
        kubernetes.stop(_required(cluster), name)
        return
    service = _find(place, name, root=root, engine=engine)
    if service is not None:
        _room(place).stop(service)


def told(found: Deployment) -> dict[str, Any]:
    """Return what a deployment or a rollback did, for the step's result."""
    details: dict[str, Any] = {
        "url": found.url,
        "revision": found.revision,
        "previous": found.previous,
        "changed": found.changed,
        "summary": found.golden.summary,
    }
    if isinstance(found.golden, Comparison):
        details["golden"] = found.golden.figures()
    return details


def _required(cluster: kubernetes.Cluster | None) -> kubernetes.Cluster:
    if cluster is None:
        raise InputError("no cluster is named", found="namespace: none", wanted="its namespace")
    return cluster


def _room(place: str) -> Any:
    return {"host": host, "docker": docker}[place]


def _find(place: str, name: str, *, root: Path | str | None, engine: Engine | None) -> Any:
    if place == "host":
        return host.find_service(required_root(root), name)
    return docker.find_service(engine or Engine(), name)


def _known_on_host(root: str | None) -> list[str]:
    folder = required_root(root)
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
