"""Drives a change from what the cluster shows to its end: promoted, or back to what served.

Level-triggered: every step looks first, and is written down before the next one begins, so that a driver that was
killed anywhere is followed by a fresh one that ends in the same state.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes import objects, routing
from airflow_model_deploy.engine.deployment.targets.kubernetes.analysis import bake
from airflow_model_deploy.engine.deployment.targets.kubernetes.interruption import Interruption
from airflow_model_deploy.engine.deployment.targets.kubernetes.phases import (
    Scale,
    canary_phases,
    rolling_step,
    routed_phases,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import target_of
from airflow_model_deploy.engine.deployment.targets.kubernetes.withdrawal import withdraw_after
from airflow_model_deploy.engine.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision, Stage
    from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Moves
    from airflow_model_deploy.engine.packaging import Workload

KEPT_REVISIONS = 2  # beside the live and the previous one
_GONE_WITHIN_S = 120.0


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
            _prepare(moves, now)
        _watch_switched(moves, now)
    return settle(moves, now[0])


def _prepare(moves: Moves, now: list[Decision]) -> None:
    """Bring the candidate to full scale by its strategy, then move the traffic by one write."""
    decision = now[0]
    strategy = moves.rollout(decision).strategy if decision.live else "blue-green"
    {"canary": _canary, "rolling": _rolling, "blue-green": _blue_green}[strategy](moves, now)
    now[0] = moves.write(now[0], stage="switched", step=0)
    moves.log(f"{moves.means.name}: revision {now[0].candidate} gets all requests")


def _blue_green(moves: Moves, now: list[Decision]) -> None:
    _checked(moves, now[0], _full_scale(moves, now[0]))


def _canary(moves: Moves, now: list[Decision]) -> None:
    decision = now[0]
    rollout, candidate = moves.rollout(decision), str(decision.candidate)
    workload = _candidate_workload(moves, decision)
    stage: Stage = "routed" if routing.is_routed(workload) else "shared"
    in_phases = routed_phases if stage == "routed" else canary_phases
    phases = in_phases(rollout.weights, _full_scale(moves, decision))
    for number, phase in enumerate(phases):
        if number < now[0].step:
            continue
        _checked(moves, now[0], phase.replicas)
        if now[0].stage == "private":
            moves.revisions.end_others((now[0].live, candidate), _GONE_WITHIN_S)
        if now[0].stage != stage or now[0].step != number:
            now[0] = moves.write(now[0], stage=stage, step=number)
        if stage == "routed":
            routing.share(moves, workload, candidate, phase.weight)
        moves.log(
            f"{moves.means.name}: canary {candidate} has {phase.replicas} pods, about {phase.share:.0%} of the"
            f" {'requests' if stage == 'routed' else 'connections'} ({phase.weight:.0%} wanted)"
        )
        bake(moves, now[0], rollout, f"canary {phase.share:.0%}", compare=True)
    # Scaled meanwhile, by an autoscaler or a person: the candidate takes over no fewer.
    _checked(moves, now[0], _full_scale(moves, now[0]))


def _rolling(moves: Moves, now: list[Decision]) -> None:
    decision = now[0]
    rollout, live, candidate = moves.rollout(decision), str(decision.live), str(decision.candidate)
    wanted = decision.replicas or 1
    moves.log(
        f"{moves.means.name}: rolling replacement: what serves is not at full scale while it lasts, and a way back"
        " has to start its pods again"
    )
    _pause_autoscaler(moves)
    # As long as it gets no requests, its pods replace nobody's.
    ready = 0 if decision.stage == "private" else len(moves.revisions.ready_now(candidate))
    scale = Scale(moves.revisions.replicas(live) or 0, moves.revisions.replicas(candidate) or 0)
    while ready < wanted or scale.live:
        after = rolling_step(
            wanted, scale, ready, max_surge=rollout.max_surge, max_unavailable=rollout.max_unavailable
        )
        if after.live != scale.live:
            moves.revisions.scale(live, after.live)
        if after.candidate != scale.candidate:
            moves.revisions.scale(candidate, after.candidate)
        pods = moves.revisions.ready(candidate, after.candidate, _within(moves, now[0]))
        ready, scale = len(pods), after
        if now[0].stage == "private":
            moves.ask(now[0], pods, candidate)
            moves.revisions.end_others((live, candidate), _GONE_WITHIN_S)
            now[0] = moves.write(now[0], stage="shared")
            if rollout.bake_s:
                bake(moves, now[0], rollout, f"first of {wanted} pods", compare=True)


def _watch_switched(moves: Moves, now: list[Decision]) -> None:
    decision = now[0]
    candidate = str(decision.candidate)
    moves.autoscale(decision)
    routing.unshare(moves, _candidate_workload(moves, decision))
    moves.revisions.ready(candidate, 1, _within(moves, decision))
    moves.led_to(candidate, decision.live)
    moves.ask_public(decision, candidate)
    rollout = moves.rollout(decision)
    if decision.action == "deploy":
        bake(moves, decision, rollout, "after the switch", compare=False)
    reason = f"revision {candidate} serves; before: {decision.live or 'nothing'}"
    ended = decision.ended(moves.outcome(decision, "promoted", reason), live=candidate)
    planned = _candidate_workload(moves, decision).replicas
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
    workload = moves.workload_of(decision)
    moves.surroundings(workload)
    routing.remove_canary(moves, workload)
    moves.revisions.retire(str(decision.live), decision.previous, KEPT_REVISIONS)
    return decision


def _checked(moves: Moves, decision: Decision, replicas: int) -> None:
    """See that the candidate has so many ready pods, and that their answers are right."""
    candidate = str(decision.candidate)
    if moves.revisions.replicas(candidate) != replicas:
        moves.revisions.scale(candidate, replicas)
    moves.ask(decision, moves.revisions.ready(candidate, replicas, _within(moves, decision)), candidate)


def _full_scale(moves: Moves, decision: Decision) -> int:
    """Return how many replicas the candidate shall have in the end: as many as serve now, unless the plan changed."""
    planned = _candidate_workload(moves, decision).replicas
    changed = decision.action == "deploy" and decision.planned not in (None, planned)
    if decision.live is None or changed:
        return planned
    return moves.revisions.replicas(decision.live) or planned


def _candidate_workload(moves: Moves, decision: Decision) -> Workload:
    return moves.workload_of(replace(decision, stage="switched"))


def _within(moves: Moves, decision: Decision) -> float:
    asked = moves.rollout(decision).ready_timeout_s
    return float(asked or objects.progress_seconds(_candidate_workload(moves, decision)))


def _pause_autoscaler(moves: Moves) -> None:
    cluster, name = moves.means.cluster, moves.means.name
    if cluster.serves("HorizontalPodAutoscaler") and cluster.delete("HorizontalPodAutoscaler", name):
        moves.log(f"{name}: the autoscaler is paused: it would undo the replacement pod by pod")


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
