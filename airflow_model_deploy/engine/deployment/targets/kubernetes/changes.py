"""Tells before a rollout what it will change: each object as it would be, against the cluster, by its own dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import diff

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.objects import Target
    from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Moves


def log_changes(moves: Moves, target: Target) -> None:
    """Log what differs once the candidate serves; nothing is changed by it.

    Raises:
        ConflictError: somebody else has set a field that the rollout sets, with their name.
    """
    served = [one for one in objects.live_objects(target) if moves.means.cluster.serves(one["kind"])]
    lines = [
        f"{change.verb} {change.kind} {change.name}"
        + (f": {', '.join(change.paths)}" if change.paths else "")
        for change in diff(moves.means.cluster, served)
        if change.verb != "none"
    ]
    for line in lines:
        moves.log(f"will {line}")
    moves.details["changes"] = lines[:50]
