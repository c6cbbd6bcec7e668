"""What a service in a cluster is now, read and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.address import inside_url
from airflow_model_deploy.engine.deployment.targets.kubernetes.analysis import restarts_of
from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Outcome, decision_on
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import (
    IMAGE,
    every,
    only,
    revision_name,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import revision_label

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster


@dataclass(frozen=True)
class RevisionStatus:
    """One revision's Deployment: how many pods it is to have, has ready, and of which image."""

    revision: str
    replicas: int
    ready: int
    image: str


@dataclass(frozen=True)
class KubernetesStatus:
    """A service in a cluster.

    Args:
        namespace: where it is.
        live: the revision that is entitled to the traffic.
        previous: where a rollback leads.
        candidate: the revision of a change that has not ended.
        stage: of that change: "private", "shared" or "switched".
        port: the Service's.
        url: inside the cluster.
        revisions: those that are there.
        outcome: how the last change ended.
        history: outcomes before that, newest first.
        releases: revision -> name of the ConfigMap with its release.
    """

    namespace: str
    live: str | None
    previous: str | None
    candidate: str | None
    stage: str | None
    port: int
    url: str
    revisions: tuple[RevisionStatus, ...]
    outcome: Outcome | None
    history: tuple[Outcome, ...]
    releases: dict[str, str]

    def revision(self, revision: str | None) -> RevisionStatus | None:
        """Return a revision that is there."""
        return next((one for one in self.revisions if one.revision == revision), None)


def status(cluster: Cluster, name: str) -> KubernetesStatus | None:
    """Return what a service is; None: it was never deployed.

    Raises:
        InputError: something else has its name.
    """
    service = cluster.get("Service", name)
    if service is None:
        return None
    decision = decision_on(service)
    return KubernetesStatus(
        namespace=cluster.namespace,
        live=decision.live,
        previous=decision.previous,
        candidate=decision.candidate,
        stage=decision.stage,
        port=int(service["spec"]["ports"][0]["port"]),
        url=inside_url(service, cluster.namespace),
        revisions=tuple(_revision(one) for one in cluster.list("Deployment", every(name))),
        outcome=decision.outcome,
        history=decision.history,
        releases=decision.releases,
    )


def restarts(cluster: Cluster, name: str, revision: str) -> int:
    """Return how often the servers of a revision's pods have been restarted."""
    return sum(map(restarts_of, cluster.list("Pod", only(name, revision))))


def stop(cluster: Cluster, name: str) -> None:
    """End the pods of a service; its objects stay, so that a deployment of the same release starts them again."""
    found = status(cluster, name)
    for one in found.revisions if found else ():
        if one.replicas:
            cluster.scale(revision_name(name, one.revision), 0)


def _revision(deployment: dict[str, Any]) -> RevisionStatus:
    annotations = deployment["metadata"].get("annotations") or {}
    return RevisionStatus(
        revision=str(revision_label(deployment)),
        replicas=int(deployment["spec"].get("replicas", 1)),
        ready=int((deployment.get("status") or {}).get("readyReplicas") or 0),
        image=str(annotations.get(IMAGE, "")),
    )
