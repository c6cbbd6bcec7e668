"""The Deployments of a service, one a revision: made once, never changed, only scaled; decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    is_ready,
    wait_gone,
    wait_ready,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import every, only, revision_name
from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import revision_label
from airflow_model_deploy.engine.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, Lease
    from airflow_model_deploy.engine.deployment.targets.kubernetes.objects import Target

Pod = dict[str, Any]
_DOOMED_WITHIN_S = 60.0


class Revisions:
    """The revisions of one service.

    Args:
        cluster: where they are.
        name: the service's.
        lease: held by the one who may change them.
        log: takes lines.
    """

    def __init__(self, cluster: Cluster, name: str, lease: Lease, log: Callable[[str], None]) -> None:
        self._cluster, self._name, self._lease, self._log = cluster, name, lease, log

    def ensure(self, target: Target, revision: str) -> None:
        """See that the revision's Deployment is there and is as it was made.

        Raises:
            ConflictError: somebody has changed it, with their name and the fields.
        """
        wanted = objects.deployment(target)
        if wanted["metadata"]["name"] != revision_name(self._name, revision):
            self._require_made(revision, wanted["metadata"]["name"])
            return
        self._lease.require()
        # Without `replicas`: an apply never scales. On what is there as it was made, it changes nothing.
        self._cluster.apply(wanted)

    def _require_made(self, revision: str, today: str) -> None:
        """Accept a revision that another version of this package made, with other pods: it stays as it was made."""
        if self.replicas(revision) is None:
            raise RolloutError(
                f"revision {revision} of {self._name}",
                found=f"gone, and this version would make it as {today}",
                wanted="its Deployment, or the version that made it",
                remedy="Deploy the release again from its artifact.",
            )
        self._log(f"{self._name}: revision {revision} was made by another version; it stays as it is")

    def replicas(self, revision: str) -> int | None:
        """Return the replicas that a revision is to have; None: it isn't there."""
        found = self._cluster.get("Deployment", revision_name(self._name, revision))
        return None if found is None else int(found["spec"].get("replicas", 1))

    def scale(self, revision: str, replicas: int, *, within_s: float = _DOOMED_WITHIN_S) -> None:
        """Set how many replicas a revision is to have.

        Pods that a scale to 0 a moment ago has doomed are ready until the cluster gets to them. Whoever counts the
        ready ones afterwards must not take them for those that are wanted now: the cluster gets up to `within_s` for
        that; 0 where nobody counts.

        Raises:
            RolloutError: the cluster didn't get to them.
        """
        if replicas and within_s and self.replicas(revision) == 0:
            selector = only(self._name, revision)
            wait_gone(self._cluster, selector, deadline_s=within_s, log=self._log, going=True)
        self._lease.require()
        self._log(f"{self._name}: revision {revision} is scaled to {replicas}")
        self._cluster.scale(revision_name(self._name, revision), replicas)

    def ready(self, revision: str, count: int, within_s: float) -> list[Pod]:
        """Wait until `count` pods of the revision are ready, and return them.

        Raises:
            RolloutError: they can't become ready, or did not in time, with the cluster's own reason.
        """
        selector = only(self._name, revision)
        return wait_ready(self._cluster, selector, count, deadline_s=within_s, log=self._log)

    def ready_now(self, revision: str) -> list[Pod]:
        """Return the pods of a revision that are ready now."""
        return ready_pods(self._cluster, self._name, revision)

    def end_others(self, wanted: Collection[str | None], within_s: float) -> None:
        """End the pods of every other revision, and wait: none may be among those that share the traffic."""
        for deployment in self._cluster.list("Deployment", every(self._name)):
            revision = revision_label(deployment)
            if revision and revision not in wanted and deployment["spec"].get("replicas", 1):
                self.scale(revision, 0)
                wait_gone(self._cluster, only(self._name, revision), deadline_s=within_s, log=self._log)

    def quiet(self, live: str) -> list[dict[str, Any]]:
        """End every revision but the live one, and return their Deployments; removes none."""
        found = self._cluster.list("Deployment", every(self._name))
        others = [one for one in found if revision_label(one) != live]
        for deployment in others:
            if deployment["spec"].get("replicas", 1):
                self.scale(str(revision_label(deployment)), 0)
        return others

    def retire(self, live: str, previous: str | None, most: int) -> None:
        """End what doesn't serve; remove all but the newest `most` of what a rollback doesn't need either."""
        old = [one for one in self.quiet(live) if revision_label(one) != previous]
        old.sort(key=lambda one: str(one["metadata"]["creationTimestamp"]), reverse=True)
        for deployment in old[most:]:
            self._remove(str(revision_label(deployment)))

    def _remove(self, revision: str) -> None:
        self._lease.require()
        self._log(f"{self._name}: revision {revision} is removed")
        self._cluster.delete("Deployment", revision_name(self._name, revision))
        for one in self._cluster.list("ConfigMap", only(self._name, revision)):
            self._cluster.delete("ConfigMap", one["metadata"]["name"])


def ready_pods(cluster: Cluster, service: str, revision: str) -> list[Pod]:
    """Return the pods of a revision that are ready."""
    return [pod for pod in cluster.list("Pod", only(service, revision)) if is_ready(pod)]


def addresses(pods: list[Pod]) -> set[str]:
    """Return the addresses of pods."""
    return {pod["status"]["podIP"] for pod in pods if pod["status"].get("podIP")}
