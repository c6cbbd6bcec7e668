"""From Airflow's connections to what a step or a runner needs of a Docker engine, by the Docker provider's hook."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.execution import given
from airflow_model_deploy.version_compat import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.docker.hooks.docker import DockerHook

_DEFAULT_URL = "unix:///var/run/docker.sock"


def docker_hook(docker: Mapping[str, Any]) -> DockerHook:
    """Return the Docker provider's hook for the fields of a `DockerConfig`."""
    from airflow.providers.docker.hooks.docker import DockerHook

    tls = DockerHook.construct_tls_config(
        ca_cert=given(docker.get("ca_cert")),
        client_cert=given(docker.get("client_cert")),
        client_key=given(docker.get("client_key")),
    )
    return DockerHook(
        docker_conn_id=registry_connection(docker), base_url=engine_url(docker), tls=tls, version="auto"
    )


def engine_url(docker: Mapping[str, Any]) -> str:
    """Return the engine's URL: the one named, DOCKER_HOST, or this machine's socket."""
    return str(given(docker.get("url")) or os.environ.get("DOCKER_HOST") or _DEFAULT_URL)


def registry_connection(docker: Mapping[str, Any]) -> str | None:
    """Return the id of the registry's connection: the one named, or that of `[model_deploy] docker_conn_id`."""
    return given(docker.get("conn_id")) or read_config("model_deploy", "docker_conn_id") or None


def docker_connections(docker: Mapping[str, Any]) -> dict[str, Any]:
    """Return engine and registry as a step takes them; goes to the step privately, never into a request or XCom."""
    engine = {
        "url": engine_url(docker),
        **{key: given(docker.get(key)) for key in ("ca_cert", "client_cert", "client_key")},
    }
    conn_id = registry_connection(docker)
    found: dict[str, Any] = {"engine": engine, "registries": [], "insecure": []}
    if conn_id:
        connection = docker_hook(docker).get_connection(conn_id)
        registry = _registry(connection, conn_id)
        if str(connection.host).startswith("http://"):
            found["insecure"].append(registry)
        # A registry that anybody may read and write is named by a connection without a login.
        if connection.login:
            found["registries"].append(
                {
                    "registry": registry,
                    "username": str(connection.login),
                    "password": str(connection.password or ""),
                }
            )
    return found


def _registry(connection: Any, conn_id: str) -> str:
    from airflow_model_deploy.operators import execution

    host = str(connection.host or "").removeprefix("https://").removeprefix("http://").rstrip("/")
    if not host:
        execution.fail(
            f"the connection {conn_id!r} names no registry; found: no host; wanted: a connection of type docker with"
            " the registry's address as host, a login and a password"
        )
    return f"{host}:{connection.port}" if connection.port else host
