"""A host without a container engine: releases in a folder, a supervisor, one public port.

The traffic decision is one file, desired.json, replaced atomically. The functions here only write decisions
and wait until they are observed; the supervisor, a program inside the release, carries them out and outlives
them.
"""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.targets.host.life import (
    HostStatus,
    ProcessStatus,
    status,
    stop,
)
from airflow_model_deploy.engine.deployment.targets.host.lookup import find_service
from airflow_model_deploy.engine.deployment.targets.host.releases import install, prune
from airflow_model_deploy.engine.deployment.targets.host.rollout import deploy, reach, rollback
from airflow_model_deploy.engine.deployment.targets.host.service import Service

__all__ = [
    "HostStatus",
    "ProcessStatus",
    "Service",
    "deploy",
    "find_service",
    "install",
    "prune",
    "reach",
    "rollback",
    "status",
    "stop",
]
