"""Where callers find a service of a cluster; waits a little for an address that a cloud has to give."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster

_ADDRESS_WITHIN_S = 120.0
_LOOK_EVERY_S = 5.0


def url_of(cluster: Cluster, service: dict[str, Any], log: Callable[[str], None]) -> str:
    """Return a Service's URL: inside the cluster by name, or as it is reached from outside.

    A load balancer whose address does not come is told in the log; the service works inside the cluster all the same.
    """
    spec, name = service["spec"], service["metadata"]["name"]
    inside = inside_url(service, cluster.namespace)
    if spec["type"] == "NodePort":
        log(f"{name}: port {spec['ports'][0].get('nodePort')} of every node; inside the cluster {inside}")
    if spec["type"] != "LoadBalancer":
        return inside
    service = _with_address(cluster, service)
    if _balancer(service) is None:
        log(
            f"{name}: no load balancer has given it an address within {_ADDRESS_WITHIN_S:.0f} s: the cluster has none,"
            f" or its quota is used up (kubectl describe service {name}); inside the cluster {inside}"
        )
    return known_url(service, cluster.namespace)


def known_url(service: Mapping[str, Any], namespace: str) -> str:
    """Return where callers find a Service as it is now: a load balancer's address, else its name inside the cluster."""
    balancer = _balancer(service)
    return f"http://{balancer}:{_port(service)}" if balancer else inside_url(service, namespace)


def inside_url(service: Mapping[str, Any], namespace: str) -> str:
    """Return where callers inside the cluster find a Service."""
    return f"http://{service['metadata']['name']}.{namespace}.svc:{_port(service)}"


def _port(service: Mapping[str, Any]) -> int:
    return int(service["spec"]["ports"][0]["port"])


def _balancer(service: Mapping[str, Any]) -> str | None:
    given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return next((one.get("ip") or one.get("hostname") for one in given), None)


def _with_address(cluster: Cluster, service: dict[str, Any]) -> dict[str, Any]:
    end = time.monotonic() + _ADDRESS_WITHIN_S
    while _balancer(service) is None and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)
        service = cluster.get("Service", service["metadata"]["name"]) or service
    return service
