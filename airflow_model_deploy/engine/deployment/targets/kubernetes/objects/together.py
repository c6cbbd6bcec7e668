"""All objects of a service with one revision live, as they are reviewed before anything is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import only
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.deployment import (
    deployment,
    revision_of_template,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.route import http_route
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.service import (
    autoscaler,
    disruption_budget,
    network_policy,
    service,
    service_account,
)

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.target import Target


def live_objects(target: Target) -> list[dict[str, Any]]:
    """Return what is in the cluster once the release has all the traffic, in the order of creation.

    Without the record of the traffic decision, which a rollout writes, and without the release's ConfigMaps.
    """
    name, namespace, workload = target.name, target.namespace, target.workload
    revision = revision_of_template(target)
    scaler = autoscaler(name, namespace, workload, revision)
    route = http_route(name, namespace, workload)
    return [
        service_account(name, namespace),
        network_policy(name, namespace, workload),
        disruption_budget(name, namespace),
        deployment(target),
        service(name, namespace, workload, selector=only(name, revision), annotations={}),
        *([scaler] if scaler else []),
        *([route] if route else []),
    ]


def file_name(value: dict[str, Any]) -> str:
    """Return the file's name for one of these objects: each kind occurs once."""
    return f"{value['kind'].lower()}.json"
