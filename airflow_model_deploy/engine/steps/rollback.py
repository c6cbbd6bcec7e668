"""Put the previous release of a service back."""

from __future__ import annotations

import logging
from typing import Annotated

from pydantic import Field

from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.connections import engine_of
from airflow_model_deploy.engine.steps.fields import Name, Place, Root
from airflow_model_deploy.engine.steps.service import existing_service, rolled_back, told
from airflow_model_deploy.engine.steps.spec import spec

logger = logging.getLogger(__name__)


@spec
class RollbackSpec:
    """Which service."""

    name: Name
    target: Place = "host"
    root: Root = None
    attempt: Annotated[
        str | None,
        Field(
            max_length=512,
            description="names this rollback: told again after its end was lost, it is not done a second time",
        ),
    ] = None


def rollback_service(spec: RollbackSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Start the previous release beside the live one, ask its golden requests, switch."""
    del inputs
    service = existing_service(spec.target, spec.name, root=spec.root, engine=engine_of(context))
    return StepOutput(details=told(rolled_back(spec.target, service, spec.attempt, logger.info)))


STEP = Step(
    name="rollback",
    summary="Put the previous release of a service back.",
    spec=RollbackSpec,
    function=rollback_service,
    pure=False,
    libraries=("docker", "numpy", "httpx"),
)
