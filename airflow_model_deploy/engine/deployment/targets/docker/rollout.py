"""Deploy and roll back on a container engine: the blue/green strategy over a front and one container a revision."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers import connect, ensure_image, find_image
from airflow_model_deploy.engine.deployment.blue_green import Deployment, go_back, put, silent
from airflow_model_deploy.engine.deployment.targets.docker.objects import server_containers
from airflow_model_deploy.engine.deployment.targets.docker.place import DockerPlace
from airflow_model_deploy.engine.deployment.targets.docker.service import IMAGE, KIND, Service, revision_of
from airflow_model_deploy.engine.errors import InputError, RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import APIClient

    from airflow_model_deploy.engine.deployment.check import Check


def deploy(service: Service, image: str, *, check: Check, log: Callable[[str], None] = silent) -> Deployment:
    """Put a model image into service, or leave what serves as it is.

    The image is pulled where it is missing, before anything is changed. Its container starts beside the live one,
    without a network, and is checked through the engine's API. Then one write moves the traffic to the same
    container, which is checked again at the public address; the old one runs on until that check has passed and is
    then kept, stopped: a rollback needs neither registry nor store.

    Args:
        service: the service.
        image: "repository@sha256:...", or the id of an image that is on the engine. Tags are refused.
        check: judges a server's answers by `servable/` (servable.json and golden requests) of its release.
        log: takes lines.

    Raises:
        InputError, IntegrityError: the image, or the service's description, can't be used.
        RolloutError: the revision did not start or was found wrong; what served before serves.
        UnavailableError: somebody else is changing the service, the port is taken, or engine or registry don't
            answer.
    """
    revision = revision_of(image)
    with _connected(service) as client:
        ensure_image(client, image, service.credentials, log=log)
        _refuse_other_kind(client, image)
        with _decider(service, client, image, log, renew=True) as place:
            kept = place.servers.ensure(image, revision)
            log(f"{service.name}: revision {revision} is installed" + (f"; {kept}" if kept else ""))
            return put(place, revision, check, log)


def rollback(
    service: Service, *, check: Check, log: Callable[[str], None] = silent, attempt: str | None = None
) -> Deployment:
    """Put the previous revision back into service if it is healthy; the replaced one becomes the previous.

    Args:
        service: the service.
        check: judges a server's answers.
        log: takes lines.
        attempt: names this rollback: made again under the same name, it only checks what it made live.

    Raises:
        RolloutError: there is no previous revision, or it did not start or was found wrong.
        UnavailableError: somebody else is changing the service, the port is taken, or the engine doesn't answer.
    """
    with _connected(service) as client:
        installed = server_containers(client, service.name)
        if not installed:
            raise RolloutError(
                f"rollback of {service.name}",
                found="live None, previous None, installed none",
                wanted="a previous revision that is installed",
                remedy="Deploy the release that should serve.",
            )
        # A front that has to be made anew is made of an image that is here.
        image = next(iter(installed.values()))["Labels"][IMAGE]
        with _decider(service, client, image, log, renew=False) as place:
            return go_back(place, check, log, attempt)


@contextlib.contextmanager
def _connected(service: Service) -> Iterator[APIClient]:
    client = connect(service.engine)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def _decider(
    service: Service, client: APIClient, image: str, log: Callable[[str], None], *, renew: bool
) -> Iterator[DockerPlace]:
    """Hold the right to decide for the service, whose front runs."""
    with tempfile.TemporaryDirectory(prefix="model-deploy-") as scratch:
        place = DockerPlace(service, client, Path(scratch), log)
        place.front.ensure(image, log, renew=renew)
        with place.front.locked():
            yield place


def _refuse_other_kind(client: APIClient, image: str) -> None:
    found = find_image(client, image) or {}
    kind = ((found.get("Config") or {}).get("Labels") or {}).get(KIND)
    if kind != "model":
        raise InputError(
            f"image {image}",
            found=f"label {KIND}: {kind}",
            wanted="model",
            remedy="Deploy an image that the packaging built: a model image.",
        )
