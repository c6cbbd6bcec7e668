"""Package the release: what the target installs, blessed by answering its golden requests as packaged."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, canonical_json
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import Release, ReleasePlan, bless, read_servable, write_bundle
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.layout import BUNDLE, PLAN, RELEASE
from airflow_model_deploy.engine.steps.spec import spec

# What the server in a bundle imports.
SERVER = ("numpy", "onnxruntime", "uvicorn", "httptools", "uvloop", "orjson", "prometheus-client")


@spec
class PackageSpec:
    """How the blessing is run."""

    target: Annotated[Literal["host"], Field(description="must be the plan's")] = "host"
    python: Annotated[
        str | None,
        Field(description="interpreter that runs the server in the blessing; None: the step's own"),
    ] = None
    ready_timeout_s: Annotated[float, Field(gt=0, description="bound for loading and warming the model")] = (
        60.0
    )


def package(spec: PackageSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Write the host's bundle and bless it; a bundle that isn't blessed is not published."""
    source = inputs["servable"]
    plan = ReleasePlan.from_json(json.loads((inputs["plan"].folder / PLAN).read_bytes()))
    servable = read_servable(source.folder)
    if plan.target != spec.target:
        raise InputError(
            "the plan is for another target",
            found=spec.target,
            wanted=plan.target,
            remedy="Give prepare and package the same target.",
        )
    if plan.servable_digest != servable.digest:
        raise InputError(
            "the plan is for another servable",
            found=servable.digest,
            wanted=plan.servable_digest,
            remedy="Prepare this servable first.",
        )
    folder = context.folder("release")
    bundle = write_bundle(source.folder, folder / BUNDLE)
    blessing = bless(
        folder / BUNDLE,
        python=spec.python or sys.executable,
        memory_limit_bytes=plan.resources.memory_bytes,
        latency_ms=plan.objectives.latency_ms,
        latency_share=plan.objectives.latency_share,
        ready_timeout_s=spec.ready_timeout_s,
    )
    # What was measured on this machine stays out of the release, so that its digest says only what it is.
    release = Release(
        plan=plan,
        bundle_digest=bundle.digest,
        blessing=replace(blessing, peak_memory_bytes=None, latency_ms=None),
    )
    (folder / RELEASE).write_bytes(canonical_json(release.to_json()))
    return StepOutput(
        folder=folder,
        description=Description(
            name=plan.name,
            kind="release",
            format="host-bundle",
            signature=source.manifest.description.signature,
            metrics={
                "bundle_digest": bundle.digest,
                "revision": bundle.revision,
                "bundle_bytes": bundle.size_bytes,
            },
        ),
        main="servable",
        measurements={"latency_ms": blessing.latency_ms, "peak_memory_bytes": blessing.peak_memory_bytes},
        details={"golden_requests": blessing.golden_total, "matched": blessing.golden_matched},
    )


STEP = Step(
    name="package",
    summary="Package the release for its target and bless it.",
    spec=PackageSpec,
    function=package,
    inputs=("servable", "plan"),
    # The pinned versions in the bundle's requirements.txt are these.
    libraries=("httpx", *SERVER),
)
