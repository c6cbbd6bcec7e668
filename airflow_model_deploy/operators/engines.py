"""From Airflow's connections to what a step or a runner needs of a Docker engine, by the Docker provider's hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.execution import given
from airflow_model_deploy.version_compat import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

_CERTIFICATES = ("ca_cert", "client_cert", "client_key")


def engine_fields(docker: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an `Engine` that were named; DOCKER_HOST and its like count where none was."""
    from airflow_model_deploy.operators import execution

    fields = {key: given(docker.get(key)) for key in ("url", *_CERTIFICATES)}
    named = [key for key in _CERTIFICATES if fields[key]]
    if named and len(named) < len(_CERTIFICATES):
        execution.fail(
            f"the certificates for the Docker engine; found: {', '.join(named)}; wanted: {', '.join(_CERTIFICATES)},"
            " all three or none"
        )
    return {key: value for key, value in fields.items() if value}


def registry_connection(docker: Mapping[str, Any]) -> str | None:
    """Return the id of the registry's connection: the one named, or that of `[model_deploy] docker_conn_id`."""
    return given(docker.get("conn_id")) or read_config("model_deploy", "docker_conn_id") or None


def docker_connections(docker: Mapping[str, Any]) -> dict[str, Any]:
    """Return engine and registry as a step takes them; goes to the step privately, never into a request or XCom."""
    found: dict[str, Any] = {"engine": engine_fields(docker), "registries": [], "insecure": []}
    conn_id = registry_connection(docker)
    if conn_id:
        from airflow.providers.docker.hooks.docker import DockerHook

        connection = DockerHook.get_connection(conn_id)
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
