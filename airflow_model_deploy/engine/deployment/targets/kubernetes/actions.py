"""What can be asked for: deploy, roll back, give the traffic back. Each holds the lease, looks, and drives on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.blue_green import Deployment
from airflow_model_deploy.engine.deployment.targets.kubernetes import routing
from airflow_model_deploy.engine.deployment.targets.kubernetes.address import url_of
from airflow_model_deploy.engine.deployment.targets.kubernetes.changes import log_changes
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, held
from airflow_model_deploy.engine.deployment.targets.kubernetes.driver import advance, finished, settle
from airflow_model_deploy.engine.deployment.targets.kubernetes.interruption import interruptible
from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import target_of
from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Means, Moves
from airflow_model_deploy.engine.deployment.targets.kubernetes.withdrawal import make_way, withdraw
from airflow_model_deploy.engine.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision
    from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import Delivered

LEASE_S = 15


@dataclass(frozen=True)
class Turn:
    """How the one writer of a service is made sure of.

    Args:
        duration_s: after which a holder that is silent has lost its turn.
        renewer: the connection that renews; None: a rollout's own.
    """

    duration_s: int = LEASE_S
    renewer: Cluster | None = None


def deploy(means: Means, delivered: Delivered, turn: Turn | None = None) -> Deployment:
    """Make a delivered release the live one, by its strategy; or leave what serves as it is.

    Raises:
        RolloutError: the release can't serve, was found wrong, or worse than what serves; what served before serves.
        RolloutInterruptedError: told to end (SIGTERM); likewise, and the same call may be made again.
        UnavailableError: another driver is at work, or the cluster can't be reached; the same call goes on.
    """
    with _turn(means, turn or Turn()) as moves:
        decision = finished(moves, moves.traffic.read())
        if decision.live == delivered.revision and decision.candidate is None:
            return _unchanged(moves, decision, delivered)
        if decision.candidate not in (None, delivered.revision):
            decision = make_way(moves, decision, delivered.revision)
            if decision.live == delivered.revision:
                return _unchanged(moves, decision, delivered)
        return _told(moves, advance(moves, _begun(moves, decision, delivered)), changed=True)


def rollback(means: Means, turn: Turn | None = None) -> Deployment:
    """Give the traffic back to what served before: in the middle of a rollout, or after it.

    Made again under the same attempt, it does nothing more.

    Raises:
        RolloutError: there is nothing to go back to, or it isn't healthy; what serves goes on serving.
        RolloutInterruptedError: told to end; likewise.
        UnavailableError: another driver is at work, or the cluster can't be reached; the same call goes on.
    """
    with _turn(means, turn or Turn()) as moves:
        decision = moves.traffic.read()
        done = decision.outcome_of(means.attempt)
        # A way back from a rollout is written down as that rollout's end; one of its own may have failed.
        if done is not None and done.result == ("promoted" if done.action == "rollback" else "rolled back"):
            decision = settle(moves, finished(moves, decision))
            return _told(moves, decision, changed=False)
        if decision.candidate and decision.action == "deploy":
            ours = moves.write(decision, attempt=means.attempt)
            return _told(
                moves, withdraw(moves, ours, "rolled back", "a rollback was asked for"), changed=True
            )
        if decision.candidate is None:
            decision = _begun_back(moves, finished(moves, decision))
        return _told(moves, advance(moves, decision), changed=True)


def give_back(means: Means, turn: Turn | None = None) -> Decision | None:
    """See that a change which nobody drives any more has given its traffic back; None where none was being made.

    Raises:
        UnavailableError: another driver is at work.
    """
    with _turn(means, turn or Turn()) as moves:
        decision = moves.traffic.read()
        if decision.candidate is None:
            finished(moves, decision)
            return None
        return withdraw(moves, decision, "interrupted", "its driver was ended")


def _begun(moves: Moves, decision: Decision, delivered: Delivered) -> Decision:
    """Write down that a change begins, or goes on."""
    revision, attempt = delivered.revision, moves.means.attempt
    releases = {**decision.releases, revision: delivered.map_name}
    if decision.candidate == revision:
        moves.log(f"{moves.means.name}: going on with revision {revision} ({decision.stage})")
        # A rollback to it that was left half done becomes this deployment: it is watched as one.
        # Delivered anew with another strategy, its phases are others.
        step = decision.step if decision.releases.get(revision) == delivered.map_name else 0
        return moves.write(decision, releases=releases, attempt=attempt, action="deploy", step=step)
    known = replace(decision, releases=releases, candidate=revision)
    release = moves.release(known, revision)
    target = target_of(release, moves.means.cluster.namespace)
    log_changes(moves, decision, target)
    if decision.live is None:
        moves.surroundings(target.workload)
    replicas = moves.revisions.replicas(decision.live) if decision.live else None
    return moves.write(
        decision,
        releases=releases,
        candidate=revision,
        action="deploy",
        stage="private",
        step=0,
        replicas=replicas,
        attempt=attempt,
    )


def _begun_back(moves: Moves, decision: Decision) -> Decision:
    target = decision.previous
    if target is None or decision.live is None:
        raise RolloutError(
            f"rollback of {moves.means.name}",
            found=f"live {decision.live or 'nothing'}, previous {target or 'none'}",
            wanted="a revision that served before",
            remedy="Deploy the release that should serve.",
        )
    return moves.write(
        decision,
        candidate=target,
        action="rollback",
        stage="private",
        step=0,
        replicas=moves.revisions.replicas(decision.live),
        attempt=moves.means.attempt,
    )


def _unchanged(moves: Moves, decision: Decision, delivered: Delivered) -> Deployment:
    """See that what serves is as the release says; its pods stay as they are."""
    revision = delivered.revision
    known = replace(
        decision,
        releases={**decision.releases, revision: delivered.map_name},
        attempt=moves.means.attempt,
    )
    target = target_of(moves.release(known, revision), moves.means.cluster.namespace)
    routing.require_gateway(moves, target.workload)
    moves.apply_account(target)
    moves.revisions.ensure(target, revision)
    planned = target.workload.replicas
    # Without any, it was stopped.
    changed = decision.planned not in (None, planned) and target.workload.max_replicas is None
    if changed or not moves.revisions.replicas(revision):
        moves.revisions.scale(revision, planned)
    moves.autoscale(known)
    pods = moves.revisions.ready(revision, 1, moves.within(known, revision))
    moves.ask(known, pods, revision)
    outcome = moves.outcome(known, "unchanged", f"revision {revision} serves already")
    after = known.ended(outcome, planned=planned)
    decision = moves.traffic.write(decision, after)
    routing.unshare(moves, target.workload)
    moves.ask_public(decision, revision)
    settle(moves, decision)
    return _told(moves, decision, changed=False)


def _told(moves: Moves, decision: Decision, *, changed: bool) -> Deployment:
    url = url_of(moves.means.cluster, moves.traffic.service, moves.log)
    return Deployment(str(decision.live), decision.previous, url, changed=changed, golden=moves.answered)


@contextmanager
def _turn(means: Means, turn: Turn) -> Iterator[Moves]:
    with (
        interruptible(),
        held(means.cluster, means.name, duration_s=turn.duration_s, renewer=turn.renewer) as lease,
    ):
        yield Moves(means, lease)
