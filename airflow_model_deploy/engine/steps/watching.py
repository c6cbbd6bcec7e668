"""Watches a service in a cluster: every pod of what serves, through whatever way leads there."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring import (
    Observation,
    Status,
    Verdict,
    judge,
    nothing_seen,
    observe_fleet,
)
from airflow_model_deploy.engine.probing import Client
from airflow_model_deploy.engine.steps.service import released_golden

if TYPE_CHECKING:
    from airflow_model_deploy.engine.packaging import Release

logger = logging.getLogger(__name__)

_TIMEOUT_S = 10.0


def watch_cluster(
    means: kubernetes.Means, release: Release, *, window_s: float, interval_s: float
) -> tuple[Verdict, Observation, kubernetes.KubernetesStatus]:
    """Probe every pod of the live revision, read their metrics at both ends, judge by the release's objectives.

    Raises:
        InputError: there is no such service, or nothing serves.
    """
    found = kubernetes.status(means.cluster, means.name)
    if found is None or found.live is None:
        raise InputError(
            f"there is no service {means.name!r} in namespace {means.cluster.namespace}",
            found="nothing that serves",
            wanted="a service that was deployed",
            remedy="Correct its name and its namespace, or deploy it first.",
        )
    live = found.live
    kept = kubernetes.read_kept(means.cluster, means.name, found.releases[live])
    objectives = release.plan.objectives
    with ExitStack() as stack:
        name, golden = released_golden(stack.enter_context(kept.folder()))
        pods = kubernetes.ready_pods(means.cluster, means.name, live)
        if not pods:
            return Verdict("failing", (f"no pod of revision {live} is ready",)), nothing_seen(), found
        clients = {
            pod["metadata"]["name"]: stack.enter_context(
                Client(stack.enter_context(means.reach.pod(pod)), name, _TIMEOUT_S)
            )
            for pod in pods
        }
        logger.info("watching %d pods of %s for %g s", len(clients), means.name, window_s)
        observation = observe_fleet(
            clients,
            golden,
            there=lambda: {
                pod["metadata"]["name"] for pod in kubernetes.ready_pods(means.cluster, means.name, live)
            },
            restarts=lambda: kubernetes.restarts(means.cluster, means.name, live),
            window_s=window_s,
            interval_s=interval_s,
            latency_ms=objectives.latency_ms,
            tell=logger.warning,
        )
    verdict = judge(observation, objectives)
    there = found.revision(live)
    if there is None or there.image != release.image:
        reason = (
            f"revision {live} is live, of image {there and there.image}; the release's is {release.image}"
        )
        verdict = replace(verdict, status="failing", reasons=(reason, *verdict.reasons))
    elif there.ready < there.replicas:
        reason = f"{there.ready} of {there.replicas} pods are ready"
        status: Status = "failing" if verdict.status == "failing" else "degraded"
        verdict = replace(verdict, status=status, reasons=(reason, *verdict.reasons))
    return verdict, observation, found
