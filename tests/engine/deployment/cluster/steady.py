"""What a test of a rollout looks at: whose pods serve, whether they are the same as before, how a change ended."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import wait_gone
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import (
    CONTAINER,
    REVISION,
    only,
    revision_name,
)
from airflow_model_deploy.engine.packaging import Objectives, Workload
from tests.engine.deployment.cluster.namespaces import fresh_namespace, kubectl
from tests.engine.deployment.cluster.rollouts import Site
from tests.engine.deployment.cluster.served import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_model_deploy.engine.deployment import Deployment
    from tests.engine.deployment.cluster.load import Load
    from tests.engine.deployment.cluster.models import Models
    from tests.engine.deployment.cluster.served import Served

_LEAVE_S = 5.0  # as long as its pods serve on, once they are to go
# One pod each, that ends soon.
ONE = Workload(replicas=1, drain_s=2.0)
# For changes that shall pass: a busy machine is no reason to go back. An edge of the server's buckets.
LENIENT = Objectives(latency_ms=5000.0, min_requests=20)


class Hook:
    """Does something at the first looks of a rollout that bakes, instead of only sleeping until the next."""

    def __init__(self, *actions: Callable[[], object]) -> None:
        self._left = list(actions)

    def __call__(self, seconds: float) -> None:
        if self._left:
            self._left.pop(0)()
        time.sleep(seconds)


def change(
    site: Site, served: Served, *arguments: Any, attempt: str, means: dict[str, Any], **options: Any
) -> Deployment:
    """Deploy, with other means than the site's."""
    delivered = site.deliver(served, *arguments, **options)
    return kubernetes.deploy(site.means(attempt, **means), delivered, kubernetes.Turn(site.lease_s))


def converged(load: Load, version: str, mark: str) -> None:
    """Mark the moment from which new connections find that version alone, every time.

    A change is carried out by each node a moment after the cluster has noted it.
    """
    until = time.monotonic() + 20
    while time.monotonic() < until:
        load.mark(mark)
        time.sleep(0.5)
        seen = load.window(mark).of(fresh=True)
        if len(seen) >= 5 and set(seen.versions) == {version} and not seen.reasons:
            return
    raise AssertionError(f"others than {version} still answer: {seen.versions} {seen.reasons}")


def drained(site: Site, revision: str, drain_s: float = 3.0) -> None:
    """Wait until the pods of a revision have stopped serving; a node may keep what is left of them for a minute."""
    if not site.cluster.list("Pod", only(NAME, revision)):
        return
    wait_gone(site.cluster, only(NAME, revision), deadline_s=30, log=print, going=True)
    time.sleep(_LEAVE_S + drain_s + 1.0)


def pods_of(site: Site, revision: str | None) -> dict[str, int]:
    """The pods of a revision by their uid, and how often their servers have restarted."""
    return {pod["metadata"]["uid"]: _restarts(pod) for pod in site.pods(revision)}


def replicas(site: Site, revision: str) -> int | None:
    """How many pods a revision shall have; None: its Deployment isn't there."""
    found = site.cluster.get("Deployment", revision_name(NAME, revision))
    return None if found is None else int(found["spec"]["replicas"])


@dataclass
class Steady:
    """A service with one live pod that nothing shall touch.

    Args:
        site: where.
        live: its revision.
        pods: as they were when it was deployed.
    """

    site: Site
    live: str
    pods: dict[str, int] = field(default_factory=dict)

    def assert_untouched(self) -> None:
        """See that the live revision has all the traffic and the same pods, and that nothing is being changed."""
        decision = self.site.decision()
        assert (decision.live, decision.candidate, decision.stage) == (self.live, None, None)
        assert self.site.selector() == only(NAME, self.live)
        assert pods_of(self.site, self.live) == self.pods

    def assert_withdrawn(self, attempt: str, words: str, result: str = "rolled back") -> str:
        """See that the change of that attempt was taken back, for a reason with these words; returns its revision."""
        self.assert_untouched()
        outcome = self.site.decision().outcome
        assert outcome is not None
        assert (outcome.attempt, outcome.result) == (attempt, result)
        assert words in outcome.reason
        assert outcome.revision != self.live
        assert replicas(self.site, outcome.revision) == 0
        return outcome.revision

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """What another person does there."""
        return kubectl(self.site.cluster.namespace, *arguments, given=given)

    def patch_service(self, body: dict[str, Any]) -> None:
        """What another person does to the Service."""
        self.kubectl("patch", "service", NAME, "--type=merge", "--patch", json.dumps(body))


def mine(revision: str, **more: str) -> dict[str, Any]:
    """What a person patches a Service with, to give a revision the traffic."""
    return {"spec": {"selector": {REVISION: revision, **more}}}


@contextmanager
def steady_site(models: Models, kind: str = "good", workload: Workload = ONE) -> Iterator[Steady]:
    """A namespace with a service that is deployed."""
    with (
        fresh_namespace() as namespace,
        kubernetes.Cluster(kubernetes.Connection(), namespace) as cluster,
    ):
        site = Site(cluster)
        live = site.deploy(models[kind], workload=workload, attempt="first").revision
        yield Steady(site, live, pods_of(site, live))


def _restarts(pod: dict[str, Any]) -> int:
    found = pod["status"].get("containerStatuses") or []
    return sum(int(one["restartCount"]) for one in found if one["name"] == CONTAINER)
