"""A service on this host as the steps and the command line see it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from airflow_model_deploy.engine.deployment.targets.host import (
    HostDeployment,
    Service,
    find_service,
    status,
    stop,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import read_servable
from airflow_model_deploy.engine.probing import Comparison, GoldenSet, check_server, load_golden

if TYPE_CHECKING:
    from pathlib import Path

Root = Annotated[str, Field(min_length=1, description="folder of the host's services, one folder each")]


def golden_check(url: str, release: Path) -> Comparison:
    """Ask a server the golden requests of an installed release."""
    name, golden = released_golden(release)
    return check_server(url, name, golden)


def released_golden(release: Path) -> tuple[str, GoldenSet]:
    """Return the name of a release's model and its golden requests; `release` is a bundle, installed or not."""
    servable = read_servable(release / "servable")
    if servable.golden is None:
        raise InputError(
            f"the release in {release} has no golden requests", wanted="golden.json", remedy="Build it anew."
        )
    return servable.name, load_golden(servable.golden)


def existing_service(root: Path, name: str) -> Service:
    """Return a service that was deployed below `root`."""
    service = find_service(root, name)
    if service is None:
        known = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        raise InputError(
            f"there is no service {name!r} below {root}",
            found=known or "no services",
            wanted="a service that was deployed",
            remedy="Correct name and root, or deploy it first.",
        )
    return service


def service_status(root: Path, name: str) -> dict[str, Any]:
    """Return what a host serves, as JSON; {} where the service was never deployed."""
    service = find_service(root, name)
    return {} if service is None else {**asdict(status(service)), "port": service.port}


def stop_service(root: Path, name: str) -> None:
    """End a service, if there is one; what is installed stays."""
    service = find_service(root, name)
    if service is not None:
        stop(service)


def told(found: HostDeployment) -> dict[str, Any]:
    """Return what a deployment or a rollback did, for the step's result."""
    details: dict[str, Any] = {
        "url": found.url,
        "revision": found.revision,
        "previous": found.previous,
        "changed": found.changed,
        "summary": found.golden.summary,
    }
    if isinstance(found.golden, Comparison):
        original = found.golden.parts[0] if found.golden.parts else found.golden
        details["golden"] = {
            "total": found.golden.total,
            "matched": found.golden.matched,
            "max_abs_error": original.max_abs_error,
            "tolerance": original.tolerance,
        }
    return details
