"""A machine with a container engine: a front that holds the public port, and one container a revision.

The traffic decision is one document, kept by the front in the service's volume and replaced if it is still the one
that was seen. The functions here write decisions, start and end containers, and wait until the front has observed
it; the front hands the public socket to the revision that is live, and does so again after the engine has restarted.
"""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.targets.docker.life import (
    ContainerStatus,
    DockerStatus,
    find_service,
    service_names,
    status,
    stop,
)
from airflow_model_deploy.engine.deployment.targets.docker.reach import reach
from airflow_model_deploy.engine.deployment.targets.docker.rollout import deploy, rollback
from airflow_model_deploy.engine.deployment.targets.docker.service import Service, revision_of

__all__ = [
    "ContainerStatus",
    "DockerStatus",
    "Service",
    "deploy",
    "find_service",
    "reach",
    "revision_of",
    "rollback",
    "service_names",
    "status",
    "stop",
]
