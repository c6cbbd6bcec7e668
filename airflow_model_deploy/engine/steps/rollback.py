"""Put the previous release of a service back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from airflow_model_deploy.engine.deployment.targets.host import rollback
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.fields import Name
from airflow_model_deploy.engine.steps.service import Root, existing_service, golden_check, told
from airflow_model_deploy.engine.steps.spec import spec

logger = logging.getLogger(__name__)


@spec
class RollbackSpec:
    """Which service."""

    target: Annotated[Literal["host"], Field(description="where the service runs")] = "host"
    root: Root
    name: Name


def rollback_service(spec: RollbackSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Start the previous release beside the live one, ask its golden requests, switch."""
    del inputs, context
    service = existing_service(Path(spec.root), spec.name)
    found = rollback(service, check=golden_check, log=logger.info)
    return StepOutput(details=told(found))


STEP = Step(
    name="rollback",
    summary="Put the previous release of a service back.",
    spec=RollbackSpec,
    function=rollback_service,
    pure=False,
    libraries=("numpy", "httpx"),
)
