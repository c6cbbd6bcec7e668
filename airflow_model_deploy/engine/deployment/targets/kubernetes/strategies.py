"""How a candidate comes to full scale: all at once, by shares of the traffic, or pod by pod. Ends nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes import routing
from airflow_model_deploy.engine.deployment.targets.kubernetes.analysis import bake
from airflow_model_deploy.engine.deployment.targets.kubernetes.phases import (
    Scale,
    canary_phases,
    rolling_step,
    routed_phases,
)

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision, Stage
    from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Moves
    from airflow_model_deploy.engine.packaging import Rollout, Workload

_GONE_WITHIN_S = 120.0


def prepare(moves: Moves, now: list[Decision]) -> None:
    """Bring the candidate to full scale by its strategy; `now` holds the decision as it was last written."""
    strategy = moves.rollout(now[0]).strategy if now[0].live else "blue-green"
    {"canary": _canary, "rolling": _rolling, "blue-green": _blue_green}[strategy](moves, now)


def candidate_workload(moves: Moves, decision: Decision) -> Workload:
    """Return the settings of the candidate's release."""
    return moves.workload_of(replace(decision, stage="switched"))


def _blue_green(moves: Moves, now: list[Decision]) -> None:
    _checked(moves, now[0], _full_scale(moves, now[0]))


def _canary(moves: Moves, now: list[Decision]) -> None:
    decision = now[0]
    rollout, live, candidate = moves.rollout(decision), str(decision.live), str(decision.candidate)
    # What leads to the service now gives the shares; other settings of the candidate come with the switch.
    workload = moves.workload_of(decision)
    full, serving = _full_scale(moves, decision), moves.revisions.replicas(live)
    stage: Stage = "routed" if routing.is_routed(workload) else "shared"
    if stage == "routed":
        phases = routed_phases(rollout.weights, full)
    else:
        phases = canary_phases(rollout.weights, serving or full)
    moves.hold_autoscaler(decision)
    for number, phase in enumerate(phases):
        if number < now[0].step:
            continue
        _checked(moves, now[0], phase.replicas)
        if now[0].stage == "private":
            moves.revisions.end_others((live, candidate), _GONE_WITHIN_S)
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
    moves.log(
        f"{moves.means.name}: rolling replacement: what serves is not at full scale while it lasts, and a way back"
        " has to start its pods again"
    )
    if moves.remove_autoscaler():
        moves.log(f"{moves.means.name}: the autoscaler is paused: it would undo the replacement pod by pod")
    wanted = _rolling_scale(moves, decision)
    # As long as it gets no requests, its pods replace nobody's.
    ready = 0 if decision.stage == "private" else len(moves.revisions.ready_now(candidate))
    scale = Scale(moves.revisions.replicas(live) or 0, moves.revisions.replicas(candidate) or 0)
    _first_bake(moves, now, rollout, wanted)
    while ready < wanted or scale.live:
        after = rolling_step(
            wanted, scale, ready, max_surge=rollout.max_surge, max_unavailable=rollout.max_unavailable
        )
        if after.live != scale.live:
            moves.revisions.scale(live, after.live)
        if after.candidate != scale.candidate:
            moves.revisions.scale(candidate, after.candidate)
        pods = moves.revisions.ready(candidate, after.candidate, moves.within(now[0], candidate))
        ready, scale = len(pods), after
        if now[0].stage == "private":
            moves.ask(now[0], pods, candidate)
            moves.revisions.end_others((live, candidate), _GONE_WITHIN_S)
            now[0] = moves.write(now[0], stage="shared")
        _first_bake(moves, now, rollout, wanted)


def _first_bake(moves: Moves, now: list[Decision], rollout: Rollout, wanted: int) -> None:
    """Watch the first pods that share the traffic, once; a driver that was killed meanwhile watches anew."""
    if now[0].stage == "shared" and now[0].step == 0 and rollout.bake_s:
        bake(moves, now[0], rollout, f"first of {wanted} pods", compare=True)
        now[0] = moves.write(now[0], step=1)


def _checked(moves: Moves, decision: Decision, replicas: int) -> None:
    """See that the candidate has so many ready pods, and that their answers are right."""
    candidate = str(decision.candidate)
    if moves.revisions.replicas(candidate) != replicas:
        moves.revisions.scale(candidate, replicas)
    pods = moves.revisions.ready(candidate, replicas, moves.within(decision, candidate))
    moves.ask(decision, pods, candidate)


def _full_scale(moves: Moves, decision: Decision) -> int:
    """Return how many replicas the candidate shall have in the end: as many as serve now, unless the plan changed."""
    workload = candidate_workload(moves, decision)
    planned = workload.replicas
    if decision.live is None:
        return planned
    serving = max(decision.replicas or 0, moves.revisions.replicas(decision.live) or 0)
    if not _plan_changed(decision, planned):
        return serving or planned
    if workload.max_replicas is not None:
        return min(workload.max_replicas, max(planned, serving))
    return planned


def _rolling_scale(moves: Moves, decision: Decision) -> int:
    """Return the same where the live revision's own scale shrinks on the way."""
    planned = candidate_workload(moves, decision).replicas
    return planned if _plan_changed(decision, planned) else (decision.replicas or planned)


def _plan_changed(decision: Decision, planned: int) -> bool:
    return decision.action == "deploy" and decision.planned not in (None, planned)
