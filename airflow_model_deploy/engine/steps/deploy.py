"""Put a blessed release into service on its target."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from airflow_model_deploy.engine.deployment.targets.host import Service, deploy
from airflow_model_deploy.engine.packaging import Release, require_blessed, verify_bundle
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.layout import BUNDLE, RELEASE
from airflow_model_deploy.engine.steps.package import SERVER
from airflow_model_deploy.engine.steps.service import Root, golden_check, told
from airflow_model_deploy.engine.steps.spec import spec

logger = logging.getLogger(__name__)


@spec
class DeploySpec:
    """Where the service runs and listens."""

    target: Annotated[Literal["host"], Field(description="where the release runs")] = "host"
    root: Root
    host: Annotated[str, Field(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="port to listen on")]
    python: Annotated[
        str | None, Field(description="interpreter that runs the server; None: the step's own")
    ] = None
    ready_timeout_s: Annotated[float, Field(gt=0, description="bound for loading and answering")] = 60.0
    drain_s: Annotated[float, Field(gt=0, description="time to finish accepted requests")] = 10.0


def deploy_release(spec: DeploySpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Install side by side, start, ask the golden requests, switch; else leave what serves as it is."""
    del context
    source = inputs["release"]
    release = Release.from_json(json.loads((source.folder / RELEASE).read_bytes()))
    bundle = source.folder / BUNDLE
    require_blessed(release, verify_bundle(bundle))
    service = Service(
        root=Path(spec.root),
        name=release.plan.name,
        port=spec.port,
        host=spec.host,
        python=spec.python or sys.executable,
        threads=release.plan.resources.threads,
        ready_timeout_s=spec.ready_timeout_s,
        drain_s=spec.drain_s,
    )
    found = deploy(service, bundle, check=golden_check, log=logger.info)
    return StepOutput(passed_on=source.reference, main="release", details=told(found))


STEP = Step(
    name="deploy",
    summary="Put a blessed release into service.",
    spec=DeploySpec,
    function=deploy_release,
    inputs=("release",),
    pure=False,
    # With no `python` of its own, the server runs in the step's interpreter.
    libraries=("httpx", *SERVER),
)
