"""Waits until a Service leads to the pods that it should; changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.following import follow
from airflow_model_deploy.engine.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import Object
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.client import Cluster


def wait_endpoints(
    cluster: Cluster,
    service: str,
    ips: AbstractSet[str],
    *,
    deadline_s: float,
    exact: bool = True,
    without: AbstractSet[str] = frozenset(),
) -> frozenset[str]:
    """Wait until the ready endpoints of a Service are these addresses; returns them as they then are.

    Args:
        cluster: where; EndpointSlices where the server has them, else Endpoints.
        service: its name.
        ips: of the pods.
        deadline_s: how long.
        exact: no others besides; False: these at least.
        without: addresses that may not be among them any more.

    Raises:
        RolloutError: others at the deadline, which it lists.
    """
    found: frozenset[str] = frozenset()
    until = time.monotonic() + deadline_s
    slices = cluster.serves("EndpointSlice")
    kind = "EndpointSlice" if slices else "Endpoints"
    selector = {"kubernetes.io/service-name": service} if slices else {}
    for objects, _ in follow(cluster, kind, selector, until=until, name=None if slices else service):
        found = ready_addresses(objects.values())
        if found == ips or (not exact and found >= ips and not found & without):
            return found
    raise RolloutError(
        f"the endpoints of Service {service} after {deadline_s:g} s",
        found=", ".join(sorted(found)) or "none",
        wanted=("" if exact else "at least ")
        + (", ".join(sorted(ips)) or "none")
        + (f", and none of {', '.join(sorted(without))}" if without else ""),
        remedy="Look whether these pods are ready and have the labels that the Service selects",
    )


def ready_addresses(objects: Iterable[Object]) -> frozenset[str]:
    """The addresses that EndpointSlices or Endpoints give traffic to."""
    return frozenset(address for obj in objects for address in _addresses(obj))


def _addresses(obj: Object) -> Iterator[str]:
    for subset in obj.get("subsets") or ():
        for address in subset.get("addresses") or ():
            yield str(address["ip"])
    for endpoint in obj.get("endpoints") or ():
        if (endpoint.get("conditions") or {}).get("ready") is not False:  # not said: ready
            yield from map(str, endpoint["addresses"])
