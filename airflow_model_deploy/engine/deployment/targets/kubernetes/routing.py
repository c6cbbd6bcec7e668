"""Gives a canary its share by the weights of an HTTPRoute, request by request. Experimental.

The traffic decision stays on the Service: a candidate that is "routed" has no pod behind that. What the route says
follows from the decision, which is written first on the way there, and last on the way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import follow, wait_endpoints
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import canary_name
from airflow_model_deploy.engine.deployment.targets.kubernetes.revisions import addresses
from airflow_model_deploy.engine.errors import InputError, RolloutError

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Moves
    from airflow_model_deploy.engine.packaging import Workload

ACCEPTED_WITHIN_S = 60.0
_WANTED = ("Accepted", "ResolvedRefs")


def is_routed(workload: Workload) -> bool:
    """Whether a Gateway gives the shares."""
    return workload.gateway is not None


def require_gateway(moves: Moves, workload: Workload) -> None:
    """Refuse settings that name a Gateway in a cluster that knows none.

    Raises:
        InputError: there is no Gateway API.
    """
    if is_routed(workload) and not moves.means.cluster.serves("HTTPRoute"):
        raise InputError(
            f"the gateway of {moves.means.name}",
            found="a cluster without the Gateway API (gateway.networking.k8s.io/v1)",
            wanted="a cluster that serves HTTPRoute, or no `gateway`",
            remedy="Install a Gateway controller, or leave `gateway` out: shares are then given by replicas.",
        )


def share(moves: Moves, workload: Workload, candidate: str, weight: float) -> None:
    """Give the candidate its share, once its pods are reached by the Service of its own.

    Raises:
        RolloutError: no Gateway has taken the route, in time.
    """
    name, namespace = moves.means.name, moves.means.cluster.namespace
    moves.apply(objects.canary_service(name, namespace, workload, candidate))
    pods = moves.revisions.ready_now(candidate)
    wait_endpoints(
        moves.means.cluster, canary_name(name), addresses(pods), deadline_s=ACCEPTED_WITHIN_S, exact=False
    )
    _write(moves, workload, max(1, round(100 * weight)))


def unshare(moves: Moves, workload: Workload, *, wait: bool = True) -> None:
    """Give the service's own pods every request again, whoever changed the route meanwhile."""
    if not is_routed(workload) or not moves.means.cluster.serves("HTTPRoute"):
        return
    _write(moves, workload, 0, force=True, wait=wait)


def tidy(moves: Moves, workload: Workload, other: Workload | None) -> None:
    """Remove the Service that led to a candidate, and the route where the settings that count name no Gateway any more.

    Args:
        moves: of the rollout.
        workload: the settings that count.
        other: those of the revision that has just been left.
    """
    routed_before = other is not None and is_routed(other)
    if not (is_routed(workload) or routed_before) or not moves.means.cluster.serves("HTTPRoute"):
        return
    if not is_routed(workload):
        moves.lease.require()
        moves.means.cluster.delete("HTTPRoute", moves.means.name)
    moves.lease.require()
    moves.means.cluster.delete("Service", canary_name(moves.means.name))


def _write(moves: Moves, workload: Workload, canary: int, *, force: bool = False, wait: bool = True) -> None:
    wanted = objects.http_route(moves.means.name, moves.means.cluster.namespace, workload, canary=canary)
    if wanted is None:
        return
    moves.lease.require()
    written = moves.means.cluster.apply(wanted, force=force)
    moves.log(f"{moves.means.name}: the route gives the canary {canary} % of the requests")
    if wait:
        _wait_accepted(moves, int(written["metadata"].get("generation") or 0))


def _wait_accepted(moves: Moves, generation: int) -> None:
    means = moves.means
    until, found = means.now() + ACCEPTED_WITHIN_S, "no Gateway has said anything of it"
    for seen, _ in follow(means.cluster, "HTTPRoute", {}, until=until, name=means.name):
        for route in seen.values():
            found = _told(route, generation) or found
            if found == "accepted":
                return
    raise RolloutError(
        f"HTTPRoute {means.name}",
        found=found,
        wanted="accepted by its Gateway, with all its Services found",
        remedy="Look at the Gateway (kubectl describe httproute), and whether its listeners allow this namespace.",
    )


def _told(route: dict[str, Any], generation: int) -> str:
    """Return what the Gateways say of a route: "accepted", or their reasons; "" where they haven't looked yet."""
    parents = (route.get("status") or {}).get("parents") or []
    conditions = [
        one
        for parent in parents
        for one in parent.get("conditions") or []
        if one["type"] in _WANTED and int(one.get("observedGeneration") or 0) >= generation
    ]
    if {one["type"] for one in conditions} != set(_WANTED):
        return ""
    bad = [
        f"{one['type']}: {one.get('reason')} {one.get('message')}"
        for one in conditions
        if one["status"] != "True"
    ]
    return "; ".join(bad) or "accepted"
