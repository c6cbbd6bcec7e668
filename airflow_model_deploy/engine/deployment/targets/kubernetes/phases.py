"""What a strategy does with replicas, as pure figures; knows no cluster.

Sources: shares by whole pods as Argo Rollouts rounds them; surge and unavailability as a Deployment's rolling update
means them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One phase of a canary.

    Args:
        weight: the share of traffic that was asked for.
        replicas: of the candidate, beside the live revision's.
        share: the share that these get, connections spread evenly.
    """

    weight: float
    replicas: int
    share: float


@dataclass(frozen=True)
class Scale:
    """How many replicas each revision shall have."""

    live: int
    candidate: int


def canary_phases(weights: tuple[float, ...], replicas: int) -> tuple[Phase, ...]:
    """Return the phases of a canary beside `replicas` live pods; the live ones all stay.

    c candidate pods beside n live ones get c / (n + c) of the connections, so a weight w takes w n / (1 - w) pods:
    rounded to whole ones, at least one, at most n.
    """
    phases: list[Phase] = []
    for weight in weights:
        count = min(max(1, round(weight * replicas / (1 - weight))), max(1, replicas))
        phases.append(Phase(weight, count, count / (replicas + count)))
    return tuple(phases)


def routed_phases(weights: tuple[float, ...], replicas: int) -> tuple[Phase, ...]:
    """Return the phases of a canary whose share a route gives exactly; its pods are as many as carry that share."""
    return tuple(Phase(weight, max(1, math.ceil(weight * replicas)), weight) for weight in weights)


def rolling_step(wanted: int, now: Scale, ready: int, *, max_surge: int, max_unavailable: int) -> Scale:
    """Return the next scale of a rolling replacement.

    Args:
        wanted: full scale.
        now: the replicas that are asked for now.
        ready: ready pods of the candidate.
        max_surge: pods beyond full scale.
        max_unavailable: pods that full scale may lack.
    """
    live = min(now.live, max(0, wanted - max_unavailable - ready))
    return Scale(live, min(wanted, max(now.candidate, wanted + max_surge - live)))
