"""Put a blessed release into service on its target."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from airflow_model_deploy.engine.containers import Limits
from airflow_model_deploy.engine.deployment import docker, host, kubernetes
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import Release, require_blessed, verify_bundle
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.clusters import cluster_of, means_of
from airflow_model_deploy.engine.steps.connections import credentials_of, engine_of
from airflow_model_deploy.engine.steps.delivery import delivered_from
from airflow_model_deploy.engine.steps.fields import (
    NAME_PATTERN,
    Attempt,
    LeaseSeconds,
    Namespace,
    Place,
    ReachMode,
    Root,
)
from airflow_model_deploy.engine.steps.layout import BUNDLE, RELEASE
from airflow_model_deploy.engine.steps.package import SERVER
from airflow_model_deploy.engine.steps.service import golden_check, required_root, told
from airflow_model_deploy.engine.steps.spec import spec

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment import Deployment

logger = logging.getLogger(__name__)


@spec
class DeploySpec:
    """Where the service runs and listens."""

    port: Annotated[
        int | None,
        Field(ge=1, le=65535, description="port to listen on; a cluster's Service has its own in the plan"),
    ] = None
    target: Place = "host"
    root: Root = None
    host: Annotated[str, Field(min_length=1, description="address to listen on")] = "127.0.0.1"
    python: Annotated[
        str | None, Field(description="interpreter that runs a host's server; None: the step's own")
    ] = None
    ready_timeout_s: Annotated[float, Field(gt=0, description="bound for loading and answering")] = 60.0
    drain_s: Annotated[float, Field(gt=0, description="time to finish accepted requests")] = 10.0
    namespace: Namespace = None
    name: Annotated[
        str | None, Field(pattern=NAME_PATTERN, description="the service, where no release is an input")
    ] = None
    delivered: Annotated[
        str | None,
        Field(description="ConfigMap of a release that was delivered to the cluster, instead of an input"),
    ] = None
    attempt: Attempt = None
    reach: ReachMode = "auto"
    lease_s: LeaseSeconds = 15


def deploy_release(spec: DeploySpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Install side by side, start, ask the golden requests, switch; else leave what serves as it is."""
    if spec.target == "kubernetes":
        return _in_cluster(spec, inputs, context)
    source = inputs["release"]
    release = Release.from_json(json.loads((source.folder / RELEASE).read_bytes()))
    if release.plan.target != spec.target:
        raise InputError(
            "the release is for another target",
            found=spec.target,
            wanted=release.plan.target,
            remedy="Give prepare, package and deploy the same target.",
        )
    on_host = spec.target == "host"
    found = _on_host(spec, release, source) if on_host else _on_engine(spec, release, context)
    return StepOutput(passed_on=source.reference, main="release", details=told(found))


def _in_cluster(spec: DeploySpec, inputs: Inputs, context: StepContext) -> StepOutput:
    with cluster_of(context.connections, spec.namespace) as cluster:
        if "release" in inputs:
            name, delivered = delivered_from(cluster, lambda path: inputs.read_file("release", path))
        elif spec.name and spec.delivered:
            name = spec.name
            delivered = kubernetes.delivered(cluster, name, spec.delivered)
        else:
            raise InputError(
                "no release is named",
                found=f"name {spec.name or 'none'}, delivered {spec.delivered or 'none'}",
                wanted="the input `release`, or `name` and `delivered`",
            )
        means = means_of(cluster, name, reach=spec.reach, attempt=spec.attempt)
        found = kubernetes.deploy(means, delivered, kubernetes.Turn(spec.lease_s))
    reference = inputs.references.get("release")
    return StepOutput(passed_on=reference, main="release" if reference else None, details=told(found))


def _port(spec: DeploySpec) -> int:
    if spec.port is None:
        raise InputError(f"no port is named for target {spec.target!r}", wanted="1 to 65535")
    return spec.port


def _on_host(spec: DeploySpec, release: Release, source: Input) -> Deployment:
    bundle = source.folder / BUNDLE
    require_blessed(release, verify_bundle(bundle))
    service = host.Service(
        root=required_root(spec.root),
        name=release.plan.name,
        port=_port(spec),
        host=spec.host,
        python=spec.python or sys.executable,
        threads=release.plan.resources.threads,
        ready_timeout_s=spec.ready_timeout_s,
        drain_s=spec.drain_s,
    )
    return host.deploy(service, bundle, check=golden_check, log=logger.info)


def _on_engine(spec: DeploySpec, release: Release, context: StepContext) -> Deployment:
    image = release.image or ""
    # Pulled and run by this digest, so what is deployed is what was blessed.
    require_blessed(release, image.rpartition("@")[2])
    resources = release.plan.resources
    service = docker.Service(
        name=release.plan.name,
        engine=engine_of(context),
        port=_port(spec),
        host=spec.host,
        limits=Limits(memory_bytes=resources.memory_bytes, cpus=resources.cpu),
        ready_timeout_s=spec.ready_timeout_s,
        drain_s=spec.drain_s,
        credentials=credentials_of(context),
    )
    return docker.deploy(service, image, check=golden_check, log=logger.info)


STEP = Step(
    name="deploy",
    summary="Put a blessed release into service.",
    spec=DeploySpec,
    function=deploy_release,
    optional=("release",),
    pure=False,
    # With no `python` of its own, a host's server runs in the step's interpreter.
    libraries=("docker", "httpx", "kubernetes", *SERVER),
)
