"""What a container wrote: its last lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers.engine import engine_errors
from airflow_model_deploy.engine.errors import ModelDeployError

if TYPE_CHECKING:
    from docker import APIClient


def tail(client: APIClient, container: str, lines: int = 20) -> str:
    """The last lines of stdout and stderr; "none" where there are none or the container is gone."""
    try:
        with engine_errors(f"the log of container {container}"):
            said = client.logs(container, stdout=True, stderr=True, tail=lines)
    except ModelDeployError:
        return "none"
    return bytes(said).decode("utf-8", errors="replace").strip() or "none"
