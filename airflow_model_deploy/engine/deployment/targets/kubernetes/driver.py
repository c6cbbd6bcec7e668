"""Drives a change from what the cluster shows to its end: promoted, or back to what served.

Level-triggered: every step looks first, and is written down before the next one begins, so that a driver that was
killed anywhere is followed by a fresh one that ends in the same state.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes import routing
from airflow_model_deploy.engine.deployment.targets.kubernetes.analysis import bake
from airflow_model_deploy.engine.deployment.targets.kubernetes.interruption import Interruption
from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import target_of
from airflow_model_deploy.engine.deployment.targets.kubernetes.strategies import candidate_workload, prepare
from airflow_model_deploy.engine.deployment.targets.kubernetes.withdrawal import restore, withdraw_after
from airflow_model_deploy.engine.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision
    from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Moves

KEPT_REVISIONS = 2  # beside the live and the previous one


def advance(moves: Moves, decision: Decision) -> Decision:
    """Take a change that has begun to its end, from wherever it stands.

    Raises:
        RolloutError: the candidate can't serve, was found wrong, or worse than what serves; what served before serves.
        RolloutInterruptedError: told to end; likewise.
        UnavailableError: the cluster can't be reached, or somebody else writes; the same call goes on from there.
    """
    now = [decision]
    with _withdrawing(moves, now):
        if decision.stage != "switched":
            target = target_of(
                moves.release(decision, str(decision.candidate)), moves.means.cluster.namespace
            )
            routing.require_gateway(moves, target.workload)
            moves.apply_account(target)
            moves.revisions.ensure(target, str(decision.candidate))
            prepare(moves, now)
            now[0] = moves.write(now[0], stage="switched", step=0)
            moves.log(f"{moves.means.name}: revision {now[0].candidate} gets all requests")
        _watch_switched(moves, now)
    return settle(moves, now[0])


def _watch_switched(moves: Moves, now: list[Decision]) -> None:
    decision = now[0]
    candidate = str(decision.candidate)
    moves.autoscale(decision)
    routing.unshare(moves, candidate_workload(moves, decision))
    moves.revisions.ready(candidate, 1, moves.within(decision, candidate))
    moves.led_to(candidate, decision.live)
    moves.ask_public(decision, candidate)
    rollout = moves.rollout(decision)
    if decision.action == "deploy":
        bake(moves, decision, rollout, "after the switch", compare=False)
    reason = f"revision {candidate} serves; before: {decision.live or 'nothing'}"
    ended = decision.ended(moves.outcome(decision, "promoted", reason), live=candidate)
    planned = candidate_workload(moves, decision).replicas
    now[0] = moves.traffic.write(
        decision,
        replace(
            ended,
            previous=decision.live or decision.previous,
            releases={
                one: name for one, name in decision.releases.items() if one in (candidate, decision.live)
            },
            planned=planned if decision.action == "deploy" else decision.planned,
        ),
        force=decision.action == "rollback",
    )
    moves.log(f"{moves.means.name}: {reason}")


def settle(moves: Moves, decision: Decision) -> Decision:
    """End what doesn't serve any more. What is left undone here, the next call does."""
    if decision.live is None:
        return decision
    workload = moves.workload_of(decision)
    moves.surroundings(workload)
    routing.tidy(moves, workload, moves.known_workload(decision, decision.previous))
    moves.revisions.retire(str(decision.live), decision.previous, KEPT_REVISIONS)
    return decision


def finished(moves: Moves, decision: Decision) -> Decision:
    """Finish a way back that an earlier call left half done, if one did."""
    if decision.candidate is not None or decision.replicas is None:
        return decision
    if decision.live is not None:
        moves.revisions.quiet(decision.live)
        moves.autoscale(decision)
        routing.unshare(moves, moves.workload_of(decision), wait=False)
    restore(moves, decision, None, wait=True)
    return moves.write(decision, replicas=None)


@contextlib.contextmanager
def _withdrawing(moves: Moves, now: list[Decision]) -> Iterator[None]:
    """Give the traffic back whatever goes wrong inside; the error goes on."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            error = sys.exc_info()[1] or RolloutError("the rollout failed")
            interrupted = isinstance(error, Interruption | KeyboardInterrupt)
            withdraw_after(moves, now[0], "interrupted" if interrupted else "rolled back", error)
