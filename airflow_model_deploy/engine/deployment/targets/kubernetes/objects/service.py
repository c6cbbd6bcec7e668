"""The objects that a service has once, whatever its revisions: its address, its identity, its protection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import (
    GROUP,
    PORT,
    every,
    labels,
    revision_name,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.metadata import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.packaging import Workload

# Pods with this label may ask the servers, whoever else may not: the driver has to, to judge a revision.
DRIVER = {f"{GROUP}/component": "driver"}
_SCALE_DOWN_WAIT_S = 300


def service(
    name: str,
    namespace: str,
    workload: Workload,
    *,
    selector: Mapping[str, str],
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    """Return the Service, with the traffic decision that the caller made: its selector and annotations."""
    port: dict[str, Any] = {"name": "http", "port": workload.port, "protocol": "TCP", "targetPort": "http"}
    if workload.node_port is not None:
        port["nodePort"] = workload.node_port
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, namespace, labels(name), {**workload.service_annotations, **annotations}),
        "spec": {"type": workload.exposure, "selector": dict(selector), "ports": [port]},
    }


def service_account(name: str, namespace: str) -> dict[str, Any]:
    """Return the pods' identity, which may do nothing and has no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, namespace, labels(name)),
        "automountServiceAccountToken": False,
    }


def network_policy(name: str, namespace: str, workload: Workload) -> dict[str, Any]:
    """Return what may reach the servers: their port, from the peers named and from the driver; they reach nothing."""
    rule: dict[str, Any] = {"ports": [{"port": PORT, "protocol": "TCP"}]}
    if workload.ingress_from:
        peers = [dict(peer) for peer in workload.ingress_from]
        rule["from"] = [*peers, {"podSelector": {"matchLabels": dict(DRIVER)}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name, namespace, labels(name)),
        "spec": {
            "podSelector": {"matchLabels": every(name)},
            # Egress is named and has no rule: everything outgoing is refused.
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [rule],
        },
    }


def disruption_budget(name: str, namespace: str) -> dict[str, Any]:
    """Return the PodDisruptionBudget: nodes are drained of one ready pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, namespace, labels(name)),
        "spec": {
            # Not `minAvailable`: with one replica it would hold a node's drain for ever.
            "maxUnavailable": 1,
            "selector": {"matchLabels": every(name)},
            # Pods that never became ready protect nobody, and must not hold a drain either.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def autoscaler(name: str, namespace: str, workload: Workload, revision: str) -> dict[str, Any] | None:
    """Return the HorizontalPodAutoscaler of the live revision; None where the settings ask for none.

    Growing is left to the cluster's defaults, which are quick. Shrinking waits until five minutes agree and
    takes at most half of the pods a minute: a model may take longer to load than a pause in the traffic lasts.
    """
    if workload.max_replicas is None:
        return None
    least = workload.replicas if workload.min_replicas is None else workload.min_replicas
    target = {"type": "Utilization", "averageUtilization": workload.cpu_target_percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(name, namespace, labels(name)),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": revision_name(name, revision),
            },
            "minReplicas": least,
            "maxReplicas": workload.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {
                "scaleDown": {
                    "stabilizationWindowSeconds": _SCALE_DOWN_WAIT_S,
                    "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
                }
            },
        },
    }
