"""Where callers find a service of a cluster; waits a little for an address that a cloud has to give."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster

_ADDRESS_WITHIN_S = 120.0
_LOOK_EVERY_S = 5.0


def url_of(cluster: Cluster, service: dict[str, Any], log: Callable[[str], None]) -> str:
    """Return a Service's URL: inside the cluster by name, or as it is reached from outside.

    A load balancer whose address does not come is told in the log; the service works inside the cluster all the same.
    """
    spec, name = service["spec"], service["metadata"]["name"]
    port = spec["ports"][0]
    inside = f"http://{name}.{cluster.namespace}.svc:{port['port']}"
    if spec["type"] == "NodePort":
        log(f"{name}: port {port.get('nodePort')} of every node; inside the cluster {inside}")
    if spec["type"] != "LoadBalancer":
        return inside
    address = _awaited_address(cluster, service)
    if address is None:
        log(
            f"{name}: no load balancer has given it an address within {_ADDRESS_WITHIN_S:.0f} s: the cluster has none,"
            f" or its quota is used up (kubectl describe service {name}); inside the cluster {inside}"
        )
        return inside
    return f"http://{address}:{port['port']}"


def _awaited_address(cluster: Cluster, service: dict[str, Any]) -> str | None:
    end = time.monotonic() + _ADDRESS_WITHIN_S
    while True:
        given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        if given:
            return str(given[0].get("ip") or given[0].get("hostname"))
        if time.monotonic() >= end:
            return None
        time.sleep(_LOOK_EVERY_S)
        service = cluster.get("Service", service["metadata"]["name"]) or service
