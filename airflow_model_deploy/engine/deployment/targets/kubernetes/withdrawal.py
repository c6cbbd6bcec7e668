"""The way back: the traffic first, by one write, then the scale. Needs neither registry nor metrics nor Airflow."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes import routing
from airflow_model_deploy.engine.deployment.targets.kubernetes.interruption import Interruption
from airflow_model_deploy.engine.errors import ModelDeployError, RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision, Result
    from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Moves


_HURRIED_S = 30.0  # half of the grace that a driver's pod has


def withdraw(moves: Moves, decision: Decision, result: Result, reason: str, *, held: bool = True) -> Decision:
    """Give all traffic back to the live revision and end the candidate; the decision says why.

    Where the live revision has no ready pod, the traffic stays where it is (if `held`): whoever answers is better
    than nobody. Told to end meanwhile, it still makes the write.

    Raises:
        RolloutError: the traffic had moved, and what served before is not healthy.
    """
    try:
        return _withdraw(moves, decision, result, reason, held=held, hurried=result == "interrupted")
    except Interruption:
        latest = moves.traffic.latest(decision)
        if latest.candidate is not None:
            # Written down as what it was for: the same call again must find it done, and go back no further.
            _withdraw(moves, latest, result, reason, held=held, hurried=True)
        raise


def _withdraw(
    moves: Moves, decision: Decision, result: Result, reason: str, *, held: bool, hurried: bool
) -> Decision:
    candidate, live = str(decision.candidate), decision.live
    moves.log(f"{moves.means.name}: revision {candidate} is withdrawn ({result}): {reason}")
    if held and live and decision.stage != "private":
        _require_healthy(moves, decision, live, reason, hurried=hurried)
    theirs, ours = moves.known_workload(decision, candidate), moves.workload_of(replace(decision, stage=None))
    if decision.stage in ("routed", "switched"):
        routing.unshare(moves, ours if decision.stage == "routed" else theirs or ours, wait=False)
    # What is owed to the live revision is written down with it, and done by whoever comes next if not by us.
    ended = decision.ended(
        moves.outcome(decision, result, reason), replicas=decision.replicas if live else None
    )
    after = moves.traffic.write(decision, ended, force=True)
    moves.log(f"{moves.means.name}: {live or 'nothing'} has all traffic")
    if hurried:
        _hurry(moves, after, candidate)
        return after
    restore(moves, after, candidate, wait=True)
    moves.autoscale(after)
    if live and decision.stage != "private":
        with _logged(moves, "its endpoints have not followed yet"):
            moves.led_to(live, candidate)
    if moves.revisions.replicas(candidate):
        moves.revisions.scale(candidate, 0)
    if live and decision.stage in ("routed", "switched"):
        routing.unshare(moves, ours)
        routing.tidy(moves, ours, theirs)
    if after.replicas is not None:
        after = moves.write(after, replicas=None)
    if live and decision.stage != "private":
        with _logged(moves, f"{live} has the traffic again, and does not answer as it should"):
            moves.ask_public(after, live)
    return after


def _hurry(moves: Moves, after: Decision, candidate: str) -> None:
    """Do what a few seconds are enough for; what more there is to do, the next call does."""
    with _logged(moves, "the rest is left to the next call"):
        moves.revisions.scale(candidate, 0)
        restore(moves, after, candidate, wait=False)
        moves.autoscale(after)


@contextmanager
def _logged(moves: Moves, what: str) -> Iterator[None]:
    """Log what goes wrong once the traffic is back: the error that led to this is the one to be told."""
    try:
        yield
    except ModelDeployError as error:
        moves.log(f"{moves.means.name}: {what}: {error}")


def _require_healthy(moves: Moves, decision: Decision, live: str, reason: str, *, hurried: bool) -> None:
    if moves.revisions.replicas(live) == 0:
        # A rolling replacement has ended them, those that the cluster hasn't got to yet, too; one has to be back
        # before it can take over.
        _start_one(moves, decision, live, _HURRIED_S if hurried else moves.within(decision, live))
        return
    if moves.revisions.ready_now(live):
        return
    moves.traffic.write(decision, decision.noted(moves.outcome(decision, "held", reason)), force=True)
    raise RolloutError(
        f"the rollout of {moves.means.name} is held: neither revision is healthy",
        found=f"revision {live}, which served before, has no ready pod; revision {decision.candidate}: {reason}",
        wanted="a healthy revision to give the traffic to",
        remedy="Look at the pods of both; a release that works, or a rollback, goes on from here.",
    )


def _start_one(moves: Moves, decision: Decision, live: str, within_s: float) -> None:
    candidate = str(decision.candidate)
    count = moves.revisions.replicas(candidate) or 0
    if count >= (decision.replicas or 1) and not moves.rollout(decision).max_surge:
        moves.revisions.scale(candidate, count - 1)  # there is room for full scale, no more
    until = time.monotonic() + within_s
    moves.revisions.scale(live, 1, within_s=within_s)
    moves.revisions.ready(live, 1, max(1.0, until - time.monotonic()))


def restore(moves: Moves, decision: Decision, withdrawn: str | None, *, wait: bool) -> None:
    """Bring the live revision back to full scale where pods were taken from it; `withdrawn` makes room first."""
    live, full = decision.live, decision.replicas
    if live is None or full is None or (moves.revisions.replicas(live) or 0) >= full:
        return
    if withdrawn:
        moves.revisions.scale(withdrawn, 0)
    # The traffic is there already: whatever is left of its pods, more of them are wanted at once.
    moves.revisions.scale(live, full, within_s=0)
    if wait:
        moves.revisions.ready(live, full, moves.within(decision, live))


def make_way(moves: Moves, decision: Decision, following: str) -> Decision:
    """End a change to another revision that an earlier call left, before `following` takes its place.

    What nobody has seen to be right must not be what a failure leads back to; unless nothing else serves: then a
    release that works must not be kept out by it.
    """
    live, candidate = decision.live, str(decision.candidate)
    moves.log(
        f"{moves.means.name}: revision {candidate} was left half way; revision {following} is wanted now"
    )
    moved = decision.stage != "private"
    if live and moved and not _is_healthy(moves, live) and _is_healthy(moves, candidate):
        reason = f"{live} isn't healthy; {candidate} keeps the traffic until {following} has proved itself"
        ended = decision.ended(moves.outcome(decision, "held", reason), live=candidate, previous=live)
        return moves.traffic.write(decision, ended, force=True)
    return withdraw(moves, decision, "rolled back", f"revision {following} is deployed instead", held=False)


def _is_healthy(moves: Moves, revision: str) -> bool:
    """Say whether it has a ready pod that isn't to go."""
    return bool(moves.revisions.replicas(revision)) and bool(moves.revisions.ready_now(revision))


def withdraw_after(moves: Moves, decision: Decision, result: Result, error: BaseException) -> None:
    """Withdraw because of an error; what goes wrong on the way is logged, so that the first error is told."""
    told = isinstance(error, ModelDeployError | Interruption)
    try:
        decision = moves.traffic.latest(decision)
        if decision.candidate is None:
            moves.log(f"{moves.means.name}: the change had ended already")
            return
        withdraw(moves, decision, result, str(error) if told else type(error).__name__)
    except RolloutError:
        raise
    except ModelDeployError as another:
        moves.log(f"{moves.means.name}: the way back is not finished, the next call goes on: {another}")
