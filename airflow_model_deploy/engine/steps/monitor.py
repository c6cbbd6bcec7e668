"""Watch a deployed release for a window: probes and the server's own metrics, to a verdict."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from airflow_model_deploy.engine.monitoring import Observation, Verdict, judge, observe
from airflow_model_deploy.engine.packaging import Release, revision_of
from airflow_model_deploy.engine.probing import Client
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.clusters import cluster_of, means_of
from airflow_model_deploy.engine.steps.connections import engine_of
from airflow_model_deploy.engine.steps.fields import Namespace, Place, ReachMode, Root
from airflow_model_deploy.engine.steps.layout import BUNDLE, RELEASE
from airflow_model_deploy.engine.steps.service import (
    existing_service,
    live_revision,
    reached,
    released_golden,
)
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.watching import watch_cluster

logger = logging.getLogger(__name__)

_TIMEOUT_S = 10.0


@spec
class MonitorSpec:
    """Which service, for how long, how often."""

    target: Place = "host"
    root: Root = None
    window_s: Annotated[float, Field(gt=0, le=86_400, description="how long to watch")] = 10.0
    interval_s: Annotated[float, Field(gt=0, description="from one probe to the next")] = 0.1
    namespace: Namespace = None
    reach: ReachMode = "auto"


def monitor(spec: MonitorSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Probe with golden requests, read the metrics at both ends, judge by the release's objectives."""
    if spec.target == "kubernetes":
        return _in_cluster(spec, inputs, context)
    source = inputs["release"]
    release = Release.from_json(json.loads((source.folder / RELEASE).read_bytes()))
    name, golden = released_golden(source.folder / BUNDLE)
    service = existing_service(spec.target, release.plan.name, root=spec.root, engine=engine_of(context))
    logger.info("watching %s for %g s", service.url, spec.window_s)
    with reached(spec.target, service) as url, Client(url, name, _TIMEOUT_S) as client:
        observation = observe(
            client,
            golden,
            window_s=spec.window_s,
            interval_s=spec.interval_s,
            latency_ms=release.plan.objectives.latency_ms,
            tell=logger.warning,
        )
    verdict = judge(observation, release.plan.objectives)
    live, wanted = live_revision(spec.target, service), revision_of(release.bundle_digest)
    if live != wanted:
        reason = f"revision {live or 'none'} is live, the release's is {wanted}"
        verdict = replace(verdict, status="failing", reasons=(reason, *verdict.reasons))
    return _told(verdict, observation, url=service.url, revision=live)


def _in_cluster(spec: MonitorSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    release = Release.from_json(json.loads(inputs.read_file("release", RELEASE)))
    with cluster_of(context.connections, spec.namespace) as cluster:
        means = means_of(cluster, release.plan.name, reach=spec.reach, attempt=None)
        verdict, observation, found = watch_cluster(
            means, release, window_s=spec.window_s, interval_s=spec.interval_s
        )
    return _told(verdict, observation, url=found.url, revision=found.live)


def _told(verdict: Verdict, observation: Observation, *, url: str, revision: str | None) -> StepOutput:
    logger.info("%s: %s", verdict.status, "; ".join(verdict.reasons))
    seen = observation.to_json()
    latencies = sorted(seen.pop("probe_latencies_ms"))
    return StepOutput(
        main="release",
        measurements={"latency_ms": latencies[len(latencies) // 2] if latencies else None},
        details={"verdict": verdict.to_json(), "observation": seen, "url": url, "revision": revision},
    )


STEP = Step(
    name="monitor",
    summary="Watch a deployed release and give a verdict.",
    spec=MonitorSpec,
    function=monitor,
    inputs=("release",),
    pure=False,
    libraries=("docker", "numpy", "httpx", "kubernetes", "prometheus-client"),
)
