"""What a rollout works with, and the few moves that every strategy is made of; in which order is the driver's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.check import Check, CheckResult
from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    Cluster,
    Lease,
    Reach,
    wait_endpoints,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision, Outcome
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import SERVICE
from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import read_kept
from airflow_model_deploy.engine.deployment.targets.kubernetes.revisions import Revisions, addresses
from airflow_model_deploy.engine.deployment.targets.kubernetes.traffic import Traffic
from airflow_model_deploy.engine.errors import InputError, IntegrityError, RolloutError
from airflow_model_deploy.engine.packaging import Rollout, Workload
from airflow_model_deploy.engine.probing import Comparison

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Result
    from airflow_model_deploy.engine.deployment.targets.kubernetes.objects import Target
    from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import Kept
    from airflow_model_deploy.engine.deployment.targets.kubernetes.revisions import Pod
    from airflow_model_deploy.engine.packaging import Release, Strategy

    Log = Callable[[str], None]

ENDPOINTS_WITHIN_S = 60.0
PUBLIC_WITHIN_S = 30.0
_PUBLIC_PASSES = 3
# Every one answers with the same image; one that can't would show in its readiness.
_ASKED_PODS = 3
_SCALER_KIND = "HorizontalPodAutoscaler"


@dataclass(frozen=True)
class Means:
    """What a rollout works with.

    Args:
        cluster: and its namespace.
        name: of the service.
        reach: the way to pods and to the Service.
        check: judges a server's answers by the golden requests in a folder.
        log: takes lines.
        attempt: the caller's key of this call.
        sleep: waits so many seconds.
        now: seconds of a clock that only goes forward.
    """

    cluster: Cluster
    name: str
    reach: Reach
    check: Check
    log: Log
    attempt: str | None = None
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class NotAsked:
    """The check of a rollout that had nothing to ask."""

    passed: bool = True
    summary: str = "not asked: the traffic went back to what had served"


@dataclass
class Moves:
    """The moves of one rollout, by the one who holds the lease; remembers what it tells at the end.

    Args:
        means: what it works with.
        lease: that it holds.
        details: what its outcome tells.
        watched: how often the server of a pod, by uid, had been restarted when this driver first watched it.
        answered: what the golden requests found last.
    """

    means: Means
    lease: Lease
    details: dict[str, Any] = field(default_factory=dict)
    watched: dict[str, int] = field(default_factory=dict)
    answered: CheckResult = field(default_factory=lambda: NotAsked())

    def __post_init__(self) -> None:
        means = self.means
        self._kept: dict[str, Kept] = {}
        self.revisions = Revisions(means.cluster, means.name, self.lease, self.log)
        self.traffic = Traffic(means.cluster, means.name, self.lease, self.workload_of)

    def log(self, line: str) -> None:
        """Log a line."""
        self.means.log(line)

    def kept(self, decision: Decision, revision: str) -> Kept:
        """Return the release that a revision was deployed by, with its golden requests."""
        name = decision.releases.get(revision)
        if name is None:
            raise RolloutError(
                f"revision {revision} of {self.means.name}",
                found=f"no release of it is known; known: {sorted(decision.releases) or 'none'}",
                wanted="a revision that was deployed",
                remedy="Deploy the release that should serve.",
            )
        if name not in self._kept:
            self._kept[name] = read_kept(self.means.cluster, self.means.name, name)
        return self._kept[name]

    def release(self, decision: Decision, revision: str) -> Release:
        """Return the release that a revision was deployed by."""
        return self.kept(decision, revision).release

    def rollout(self, decision: Decision) -> Rollout:
        """Return the strategy of the change that is being made. The way back isn't watched: it has proved itself."""
        if decision.candidate is None:
            return Rollout(bake_s=0.0)
        if decision.action == "rollback":
            # Where there is no room for a second set, there is none on the way back either.
            known = self._known(decision, str(decision.live))
            of = (known and known.plan.rollout) or Rollout()
            strategy: Strategy = "rolling" if of.strategy == "rolling" else "blue-green"
            return replace(of, strategy=strategy, bake_s=0.0)
        return self.release(decision, decision.candidate).plan.rollout or Rollout()

    def workload_of(self, decision: Decision) -> Workload:
        """Return the settings that the service-wide objects have under a decision."""
        owner = decision.owner or decision.candidate
        if owner is None and decision.outcome and decision.outcome.revision in decision.releases:
            owner = decision.outcome.revision  # a first release that failed: its address stays as it is
        release = self.release(decision, owner) if owner else None
        return (release.plan.workload if release else None) or Workload()

    def known_workload(self, decision: Decision, revision: str | None) -> Workload | None:
        """Return the settings that a revision was deployed with, if they are known."""
        known = self._known(decision, revision) if revision else None
        return known.plan.workload if known else None

    def apply(self, wanted: dict[str, Any] | None) -> None:
        """Make an object as it is wanted, where the cluster serves its kind."""
        if wanted is None:
            return
        if not self.means.cluster.serves(wanted["kind"]):
            left = self.details.setdefault("left_out", [])
            if wanted["kind"] not in left:
                self.log(
                    f"{wanted['kind']} ({wanted['apiVersion']}) is left out: this cluster doesn't serve it"
                )
                left.append(wanted["kind"])
            return
        self.lease.require()
        self.means.cluster.apply(wanted)

    def apply_account(self, target: Target) -> None:
        """Apply the ServiceAccount that pods need to be made."""
        self.apply(objects.service_account(target.name, target.namespace))

    def surroundings(self, workload: Workload) -> None:
        """Apply what stands beside the pods."""
        name, namespace = self.means.name, self.means.cluster.namespace
        self.apply(objects.network_policy(name, namespace, workload))
        self.apply(objects.disruption_budget(name, namespace))

    def autoscale(self, decision: Decision) -> None:
        """Let the autoscaler, where one is wanted, scale the revision that has the traffic."""
        owner = decision.owner
        if owner is None:
            return
        name, namespace = self.means.name, self.means.cluster.namespace
        wanted = objects.autoscaler(name, namespace, self.workload_of(decision), owner)
        if wanted is not None:
            self.apply(wanted)
        else:
            self.remove_autoscaler()

    def hold_autoscaler(self, decision: Decision) -> None:
        """Keep the live revision at full scale while a candidate takes some of its load."""
        workload, full = self.workload_of(decision), decision.replicas
        if workload.max_replicas is None or decision.live is None or full is None:
            return
        least = min(workload.max_replicas, max(full, workload.min_replicas or 1))
        held = replace(workload, min_replicas=least, replicas=least)
        self.apply(objects.autoscaler(self.means.name, self.means.cluster.namespace, held, decision.live))

    def remove_autoscaler(self) -> bool:
        """Remove our autoscaler, if there is one; a person's own is refused.

        Raises:
            RolloutError: an autoscaler of somebody else has the service's name.
        """
        cluster, name = self.means.cluster, self.means.name
        found = cluster.get(_SCALER_KIND, name) if cluster.serves(_SCALER_KIND) else None
        if found is None:
            return False
        if (found["metadata"].get("labels") or {}).get(SERVICE) != name:
            raise RolloutError(
                f"{_SCALER_KIND} {name}",
                found="an autoscaler that no rollout made",
                wanted="none of that name, or `max_replicas` in the release's plan",
                remedy="Remove it, and set max_replicas: a rollout decides with it.",
            )
        self.lease.require()
        return cluster.delete(_SCALER_KIND, name)

    def within(self, decision: Decision, revision: str) -> float:
        """Return how long a revision's pods may take to be ready."""
        known = self._known(decision, revision)
        asked = known.plan.rollout.ready_timeout_s if known and known.plan.rollout else None
        return float(asked or objects.progress_seconds((known and known.plan.workload) or Workload()))

    def _known(self, decision: Decision, revision: str) -> Release | None:
        try:
            return self.release(decision, revision)
        except (InputError, IntegrityError, RolloutError):
            return None  # somebody removed its record

    def ask(self, decision: Decision, pods: list[Pod], revision: str) -> None:
        """Ask pods the golden requests.

        Raises:
            RolloutError: an answer is wrong.
        """
        with self.kept(decision, revision).folder() as folder:
            for pod in pods[:_ASKED_PODS]:
                with self.means.reach.pod(pod) as url:
                    self._judged(self.means.check(url, folder), f"pod {pod['metadata']['name']}")

    def ask_public(self, decision: Decision, revision: str) -> None:
        """Ask the Service the golden requests, over new connections, until the answers are right several times running.

        The nodes carry a change of the traffic out a moment after the cluster has noted it.

        Raises:
            RolloutError: an answer is still wrong after a while.
        """
        means, passed = self.means, 0
        until = means.now() + PUBLIC_WITHIN_S
        with (
            self.kept(decision, revision).folder() as folder,
            means.reach.public(self.traffic.service) as url,
        ):
            while passed < _PUBLIC_PASSES:
                result = means.check(url, folder)
                passed = passed + 1 if result.passed else 0
                if not result.passed:
                    if means.now() >= until:
                        self._judged(result, f"Service {means.name}")
                    means.sleep(0.5)
        self._judged(result, f"Service {means.name}")

    def led_to(self, revision: str, other: str | None) -> None:
        """Wait until the Service leads to the revision's ready pods, and to none of the other's.

        Raises:
            RolloutError: it does not, in time.
        """
        for last in (False, False, True):
            # Looked at anew: pods come and go meanwhile.
            pods = self.revisions.ready_now(revision)
            others = self.revisions.ready_now(other) if other else []
            try:
                wait_endpoints(
                    self.means.cluster,
                    self.means.name,
                    addresses(pods),
                    deadline_s=ENDPOINTS_WITHIN_S / 3,
                    exact=False,
                    without=addresses(others),
                )
            except RolloutError:
                if last:
                    raise
            else:
                return

    def outcome(self, decision: Decision, result: Result, reason: str) -> Outcome:
        """Return how a change ended, as it is written down; under the key of the call that made it."""
        return Outcome(
            attempt=decision.attempt,
            action=decision.action or "deploy",
            revision=decision.candidate or decision.live or "",
            result=result,
            reason=reason[:2000],
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            details=dict(self.details),
        )

    def write(self, now: Decision, **changes: Any) -> Decision:
        """Write a change of the decision. The way back takes the Service, whoever has changed it; a release never."""
        after = replace(now, **changes)
        return self.traffic.write(now, after, force=after.action == "rollback")

    def _judged(self, result: CheckResult, what: str) -> None:
        self.log(f"check of {what}: {result.summary}")
        self.answered, self.details["summary"] = result, result.summary
        if isinstance(result, Comparison):
            self.details["golden"] = result.figures()
        if not result.passed:
            raise RolloutError(
                f"{what} gives wrong answers",
                found=result.summary,
                wanted="a passed check",
                remedy="Build a release that passes.",
            )
