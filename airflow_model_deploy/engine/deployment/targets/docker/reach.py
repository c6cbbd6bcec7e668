"""The way from this process to a service's public side, wherever the engine is; starts nothing there."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_model_deploy.engine.containers import connect, tunnel
from airflow_model_deploy.engine.deployment.targets.docker.service import PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import APIClient

    from airflow_model_deploy.engine.deployment.targets.docker.service import Service

_PATIENCE_SECONDS = 2.0


@contextlib.contextmanager
def reach(service: Service) -> Iterator[str]:
    """Give the base URL at which this process reaches the service's public side while the block lasts.

    It is the public URL, or, where that leads nowhere from here or to another machine, the local end of a tunnel
    to the same socket inside the front.

    Raises:
        UnavailableError: neither the public address nor the engine answers.
    """
    if _is_open(service):
        yield service.url
        return
    client = connect(service.engine)
    try:
        with tunnel(client, service.name, PORT) as url:
            yield url
    finally:
        client.close()


@contextlib.contextmanager
def way_in(service: Service, client: APIClient, log: Callable[[str], None]) -> Iterator[str]:
    """Do as `reach` does, over an engine that was connected to."""
    if _is_open(service):
        yield service.url
        return
    log(f"{service.name}: {service.url} can't be reached from here; its socket is asked at the front")
    with tunnel(client, service.name, PORT, log=log) as url:
        yield url


def _is_open(service: Service) -> bool:
    # A loopback address of the engine's machine is another service's here, or nobody's.
    if service.only_there:
        return False
    parts = urlsplit(service.url)
    try:
        socket.create_connection((str(parts.hostname), service.port), _PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True
