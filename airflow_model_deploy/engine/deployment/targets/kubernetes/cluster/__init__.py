"""One namespace of a Kubernetes cluster: read it, write it, wait on it, reach into it. Knows no release."""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.causes import (
    Cause,
    classify,
    explained,
    is_going,
    is_ready,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.client import Cluster
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.connection import Connection
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.difference import Change, diff
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.endpoints import wait_endpoints
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.following import follow
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.lease import Lease, held
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.ownership import claimed
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.reach import (
    DirectReach,
    ProxyReach,
    Reach,
    reach_of,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.refusals import (
    AbsentError,
    ConflictError,
    ExistsError,
    ExpiredError,
    ForbiddenError,
    LostError,
    StaleError,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.waiting import wait_gone, wait_ready

__all__ = [
    "AbsentError",
    "Cause",
    "Change",
    "Cluster",
    "ConflictError",
    "Connection",
    "DirectReach",
    "ExistsError",
    "ExpiredError",
    "ForbiddenError",
    "Lease",
    "LostError",
    "ProxyReach",
    "Reach",
    "StaleError",
    "claimed",
    "classify",
    "diff",
    "explained",
    "follow",
    "held",
    "is_going",
    "is_ready",
    "reach_of",
    "wait_endpoints",
    "wait_gone",
    "wait_ready",
]
