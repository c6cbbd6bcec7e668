"""Tells before a rollout what it will change: each object as it would be, against the cluster, by its own dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import diff
from airflow_model_deploy.engine.errors import RolloutError

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Change
    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision
    from airflow_model_deploy.engine.deployment.targets.kubernetes.objects import Target
    from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Moves


def log_changes(moves: Moves, decision: Decision, target: Target) -> None:
    """Log what differs from the decision once the candidate serves; nothing is changed by it.

    Raises:
        RolloutError: somebody else has set fields that the rollout sets: all of them, with their names.
    """
    served = [one for one in objects.live_objects(target) if moves.means.cluster.serves(one["kind"])]
    changes = diff(moves.means.cluster, served)
    # A Service is meant to be changed: somebody who has set a field and undone it is in nobody's way.
    ours = {"Service"} if moves.traffic.undisturbed(decision) else set()
    if conflicts := [change for change in changes if change.verb == "conflict" and change.kind not in ours]:
        raise RolloutError(
            f"objects of {moves.means.name} were changed by another writer",
            found="; ".join(map(_told, conflicts)),
            wanted="what an earlier rollout made of them",
            remedy="Undo that change, or hand its fields back (kubectl apply --server-side --force-conflicts"
            " --field-manager=model-deploy), then run it again. Nothing was changed.",
        )
    verbs = {"conflict": "change"}
    lines = [f"{verbs.get(one.verb, one.verb)} {_told(one)}" for one in changes if one.verb != "none"]
    for line in lines:
        moves.log(f"will {line}")
    moves.details["changes"] = [line[:200] for line in lines[:50]]


def _told(change: Change) -> str:
    fields = f": {', '.join(change.paths)}" if change.paths else ""
    note = f" ({change.note})" if change.note else ""
    return f"{change.kind} {change.name}{fields}{note}"
