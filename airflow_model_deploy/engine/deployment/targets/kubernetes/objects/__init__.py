"""The objects of a service in a cluster, as the API takes them. Pure: equal settings give equal bytes."""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.deployment import (
    deployment,
    revision_of_template,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.maps import (
    chunk_names,
    read_release_maps,
    release_maps,
    release_name,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.probes import (
    progress_seconds,
    startup_seconds,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.route import (
    canary_service,
    http_route,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.service import (
    DRIVER,
    autoscaler,
    disruption_budget,
    network_policy,
    service,
    service_account,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.target import Target, pending_image
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.together import file_name, live_objects

__all__ = [
    "DRIVER",
    "Target",
    "autoscaler",
    "canary_service",
    "chunk_names",
    "deployment",
    "disruption_budget",
    "file_name",
    "http_route",
    "live_objects",
    "network_policy",
    "pending_image",
    "progress_seconds",
    "read_release_maps",
    "release_maps",
    "release_name",
    "revision_of_template",
    "service",
    "service_account",
    "startup_seconds",
]
