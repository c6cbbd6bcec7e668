"""What tests of a rollout share: releases of the tests' models, and a service to put them into."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment import kubernetes
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
from airflow_model_deploy.engine.steps.service import golden_check
from tests.engine.deployment.cluster.served import NAME

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment import Deployment
    from tests.engine.deployment.cluster.served import Served

PLAIN = Rollout(bake_s=0.0)
# Looks once a second; tests have no minute to spare.
CANARY = Rollout(strategy="canary", weights=(0.3, 0.5), bake_s=3.0, hold_s=4.0, interval_s=1.0)


def release_of(
    served: Served,
    rollout: Rollout = PLAIN,
    workload: Workload | None = None,
    *,
    image: str | None = None,
    objectives: Objectives | None = None,
    memory_bytes: int = 192 << 20,
) -> bytes:
    """The release of one of the tests' models, as packaging writes it."""
    named = image or served.image
    plan = ReleasePlan(
        name=NAME,
        servable_digest="sha256:" + "1" * 64,
        target="kubernetes",
        strategy=rollout.strategy,
        objectives=objectives or Objectives(latency_ms=100.0, min_requests=20),
        golden=GoldenPromise(requests=5, original_tolerance=1e-4, built_tolerance=1e-4),
        resources=Resources(cpu=0.05, memory_bytes=memory_bytes, threads=1),
        workload=workload or Workload(),
        rollout=rollout,
    )
    release = Release(plan=plan, bundle_digest=named.rpartition("@")[2], image=named)
    return json.dumps(release.to_json(), sort_keys=True).encode()


@dataclass
class Site:
    """One service in a namespace of its own, as a test drives it."""

    cluster: kubernetes.Cluster
    reach: Any = None
    lease_s: int = 5
    log: list[str] = field(default_factory=list)

    def deliver(self, served: Served, *arguments: Any, **options: Any) -> kubernetes.Delivered:
        """Bring a release into the cluster."""
        release = release_of(served, *arguments, **options)
        read = served.servable.joinpath
        return kubernetes.deliver(
            self.cluster, release, read("servable.json").read_bytes(), read("golden.json").read_bytes()
        )

    def deploy(
        self, served: Served, *arguments: Any, attempt: str | None = None, **options: Any
    ) -> Deployment:
        """Deliver a release, and roll it out."""
        delivered = self.deliver(served, *arguments, **options)
        return kubernetes.deploy(self.means(attempt), delivered, kubernetes.Turn(self.lease_s))

    def rollback(self, attempt: str | None = None) -> Deployment:
        """Go back."""
        return kubernetes.rollback(self.means(attempt), kubernetes.Turn(self.lease_s))

    def means(self, attempt: str | None = None, **changes: Any) -> kubernetes.Means:
        """What a rollout works with."""
        means = kubernetes.Means(
            cluster=self.cluster,
            name=NAME,
            reach=self.reach or kubernetes.reach_of(self.cluster, "direct"),
            check=golden_check,
            log=self.log.append,
            attempt=attempt,
        )
        return replace(means, **changes)

    def decision(self) -> Decision:
        """The decision as the cluster has it."""
        service = self.cluster.get("Service", NAME)
        assert service is not None
        return decision_on(service)

    def selector(self) -> dict[str, str]:
        """Whom the Service leads to."""
        service = self.cluster.get("Service", NAME)
        assert service is not None
        return dict(service["spec"]["selector"])

    def address(self) -> str:
        """Where the Service is reached from this machine."""
        service = self.cluster.get("Service", NAME)
        assert service is not None
        return f"{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"

    def pods(self, revision: str | None = None) -> list[dict[str, Any]]:
        """The pods, those that are ending left out."""
        found = self.cluster.list("Pod", kubernetes_selector(revision))
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def kubernetes_selector(revision: str | None) -> dict[str, str]:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.names import every, only

    return only(NAME, revision) if revision else every(NAME)
