"""The HTTPRoute of a service behind a Gateway, and the Service that a canary is addressed by. Experimental."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import canary_name, labels, only
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.metadata import metadata

if TYPE_CHECKING:
    from airflow_model_deploy.engine.packaging import Workload

_WHOLE = 100


def http_route(name: str, namespace: str, workload: Workload, *, canary: int = 0) -> dict[str, Any] | None:
    """Return the route; None where the settings name no Gateway.

    Args:
        name: the service's.
        namespace: of the route and of both Services.
        workload: names the Gateway.
        canary: percent of the requests that go to the canary's Service; with 0 it is not named at all: a backend
            that isn't there is answered with 500 for its share.
    """
    if workload.gateway is None:
        return None
    place, _, gateway = workload.gateway.rpartition("/")
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}
    backends = [_backend(name, workload.port, _WHOLE - canary)]
    if canary:
        backends.append(_backend(canary_name(name), workload.port, canary))
    spec: dict[str, Any] = {
        "parentRefs": [parent | ({"namespace": place} if place else {})],
        "rules": [{"backendRefs": backends}],
    }
    if workload.hostnames:
        spec["hostnames"] = list(workload.hostnames)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(name, namespace, labels(name)),
        "spec": spec,
    }


def canary_service(name: str, namespace: str, workload: Workload, revision: str) -> dict[str, Any]:
    """Return the Service that leads to a candidate alone, for the route to give it a share."""
    port = {"name": "http", "port": workload.port, "protocol": "TCP", "targetPort": "http"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(canary_name(name), namespace, labels(name)),
        "spec": {"type": "ClusterIP", "selector": only(name, revision), "ports": [port]},
    }


def _backend(name: str, port: int, weight: int) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": name, "port": port, "weight": weight}
