"""A service of simulated pods, and what is done to it again and again: rollouts and ways back of any strategy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, Connection
from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision, decision_on
from airflow_model_deploy.engine.packaging import (
    GoldenPromise,
    Objectives,
    Release,
    ReleasePlan,
    Resources,
    Rollout,
    Workload,
)
from tests.engine.deployment.cluster.crashes import Faulty, Watcher
from tests.engine.deployment.cluster.namespaces import fresh_namespace
from tests.engine.deployment.cluster.served import NAME
from tests.engine.deployment.cluster.simulated_pods import Simulation, simulated
from tests.engine.deployment.cluster.stand_ins import StandIns, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.deployment import Deployment
    from tests.engine.deployment.cluster.crashes import Fault

    Act = Callable[[kubernetes.Means, kubernetes.Turn], Deployment]

REPLICAS = 2
ROLLOUTS = {
    "blue-green": Rollout(bake_s=2.0, interval_s=1.0),
    "canary": Rollout(strategy="canary", weights=(0.25, 0.5), bake_s=2.0, interval_s=1.0),
    "rolling": Rollout(strategy="rolling", max_surge=0, max_unavailable=1, bake_s=2.0, interval_s=1.0),
}


class Clock:
    """Minutes that pass in no time."""

    def __init__(self, doings: list[Callable[[], object]]) -> None:
        self._at, self._doings = 0.0, doings

    def now(self) -> float:
        """Seconds since the beginning."""
        return self._at

    def sleep(self, seconds: float) -> None:
        """Let them pass; the cluster still gets a moment."""
        self._at += seconds
        if self._doings:
            self._doings.pop(0)()
        time.sleep(0.02)


@dataclass
class Ground:
    """A service whose pods are simulated.

    Args:
        cluster: the test's own connection.
        simulation: of its pods.
        stand_ins: that answer for them.
        watcher: sees what must never be.
        connection: a driver's.
        lease_s: how long its turn lasts without a renewal.
        doings: what happens while a rollout waits, each at one wait.
    """

    cluster: Cluster
    simulation: Simulation
    stand_ins: StandIns
    watcher: Watcher
    connection: Connection = field(default_factory=Connection)
    lease_s: int = 15
    doings: list[Callable[[], object]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    made: int = 0

    def release(self, strategy: str = "blue-green") -> bytes:
        """Make another release, which takes over by that strategy."""
        self.made += 1
        rollout = ROLLOUTS[strategy]
        self.watcher.unavailable = rollout.max_unavailable if strategy == "rolling" else None
        image = f"registry.invalid/simulated@sha256:{self.made:064x}"
        plan = ReleasePlan(
            name=NAME,
            servable_digest="sha256:" + "1" * 64,
            target="kubernetes",
            strategy=rollout.strategy,
            objectives=Objectives(latency_ms=100.0, min_requests=20),
            golden=GoldenPromise(requests=5, original_tolerance=1e-4, built_tolerance=1e-4),
            resources=Resources(cpu=0.05, memory_bytes=64 << 20, threads=1),
            workload=Workload(replicas=REPLICAS, **self.simulation.placement),
            rollout=rollout,
        )
        release = Release(plan=plan, bundle_digest=image.rpartition("@")[2], image=image)
        return json.dumps(release.to_json(), sort_keys=True).encode()

    def revision(self, release: bytes) -> str:
        """Return the revision that a release is."""
        target = kubernetes.target_of(Release.from_json(json.loads(release)), self.cluster.namespace)
        return kubernetes.revision_of_template(target)

    def deploy(self, release: bytes, attempt: str, fault: Fault | None = None) -> Faulty:
        """Deliver a release and roll it out, up to the fault; returns what was called."""
        index = json.dumps({"golden": "golden.json", "version": self.revision(release)}).encode()

        def act(means: kubernetes.Means, turn: kubernetes.Turn) -> Deployment:
            delivered = kubernetes.deliver(means.cluster, release, index, b"{}")
            return kubernetes.deploy(means, delivered, turn)

        return self._act(act, attempt, fault)

    def rollback(self, attempt: str, fault: Fault | None = None) -> Faulty:
        """Go back, up to the fault; returns what was called."""
        return self._act(kubernetes.rollback, attempt, fault)

    def decision(self) -> Decision:
        """The decision as the cluster has it; an empty one before the first."""
        service = self.cluster.get("Service", NAME)
        return decision_on(service) if service else Decision()

    def live_strategy(self) -> str | None:
        """The strategy by which what is live took over."""
        decision = self.decision()
        if decision.live is None:
            return None
        kept = kubernetes.read_kept(self.cluster, NAME, decision.releases[decision.live])
        return kept.release.plan.strategy

    def clear(self) -> None:
        """Remove the service, as if it had never been here."""
        self.cluster.delete("Service", NAME)
        for kind in ("Deployment", "ConfigMap", "ServiceAccount", "NetworkPolicy", "Lease"):
            for one in self.cluster.list(kind, {"app.kubernetes.io/name": NAME}):
                self.cluster.delete(kind, one["metadata"]["name"])

    def _act(self, act: Act, attempt: str, fault: Fault | None) -> Faulty:
        clock = Clock(self.doings)
        with Faulty(self.connection, self.cluster.namespace, self.watcher, fault) as faulty:
            means = kubernetes.Means(
                cluster=faulty,
                name=NAME,
                reach=self.stand_ins,
                check=check,
                log=self.log.append,
                attempt=attempt,
                sleep=clock.sleep,
                now=clock.now,
            )
            with faulty.ending():
                faulty.result = act(means, kubernetes.Turn(self.lease_s))
        return faulty


@contextmanager
def ground() -> Iterator[Ground]:
    """Give a service in a namespace of its own; nothing is deployed yet."""
    with ExitStack() as stack:
        name = stack.enter_context(fresh_namespace())
        first, second = (stack.enter_context(Cluster(Connection(), name)) for _ in range(2))
        simulation = stack.enter_context(simulated(first))
        watcher = Watcher(second, REPLICAS)
        stand_ins = stack.enter_context(StandIns(simulation.revisions, watcher.behind).serving())
        yield Ground(second, simulation, stand_ins, watcher)
