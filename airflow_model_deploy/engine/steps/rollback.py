"""Put the previous release of a service back."""

from __future__ import annotations

import logging

from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.clusters import cluster_of, means_of
from airflow_model_deploy.engine.steps.connections import engine_of
from airflow_model_deploy.engine.steps.fields import (
    Attempt,
    LeaseSeconds,
    Name,
    Namespace,
    Place,
    ReachMode,
    Root,
)
from airflow_model_deploy.engine.steps.service import existing_service, rolled_back, told
from airflow_model_deploy.engine.steps.spec import spec

logger = logging.getLogger(__name__)


@spec
class RollbackSpec:
    """Which service."""

    name: Name
    target: Place = "host"
    root: Root = None
    attempt: Attempt = None
    namespace: Namespace = None
    reach: ReachMode = "auto"
    lease_s: LeaseSeconds = 15


def rollback_service(spec: RollbackSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Start the previous release beside the live one, ask its golden requests, switch."""
    del inputs
    if spec.target == "kubernetes":
        with cluster_of(context.connections, spec.namespace) as cluster:
            means = means_of(cluster, spec.name, reach=spec.reach, attempt=spec.attempt)
            return StepOutput(details=told(kubernetes.rollback(means, kubernetes.Turn(spec.lease_s))))
    service = existing_service(spec.target, spec.name, root=spec.root, engine=engine_of(context))
    return StepOutput(details=told(rolled_back(spec.target, service, spec.attempt, logger.info)))


STEP = Step(
    name="rollback",
    summary="Put the previous release of a service back.",
    spec=RollbackSpec,
    function=rollback_service,
    pure=False,
    libraries=("docker", "numpy", "httpx", "kubernetes"),
)
