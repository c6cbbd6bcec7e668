"""Package the release: what the target installs, blessed by answering its golden requests as packaged."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, canonical_json
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import (
    Blessing,
    Release,
    ReleasePlan,
    bless,
    read_servable,
    revision_of,
    write_bundle,
)
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.cluster_objects import write_objects
from airflow_model_deploy.engine.steps.fields import Target
from airflow_model_deploy.engine.steps.layout import BUNDLE, PLAN, RELEASE
from airflow_model_deploy.engine.steps.spec import spec

if TYPE_CHECKING:
    from pathlib import Path

# What the server in a bundle imports.
SERVER = ("numpy", "onnxruntime", "uvicorn", "httptools", "uvloop", "orjson", "prometheus-client")


@spec
class PackageSpec:
    """What is packaged, where an image goes, and how the blessing is run."""

    target: Target = "host"
    python: Annotated[
        str | None,
        Field(description="interpreter that runs a host's server in the blessing; None: the step's own"),
    ] = None
    ready_timeout_s: Annotated[float, Field(gt=0, description="bound for loading and warming the model")] = (
        60.0
    )
    backend: Annotated[
        Literal["auto", "docker", "oci"],
        Field(description="who builds the image: a Docker engine, or this step itself without one"),
    ] = "auto"
    base_image: Annotated[
        str | None,
        Field(description="image with Python below the server; None: python:<the step's own version>-slim"),
    ] = None
    registry: Annotated[
        str | None,
        Field(
            description="where images are pushed: 'host[:port][/path]', then '/<model>' and '/model-server'; None: they"
            " stay on the engine that builds them"
        ),
    ] = None
    runtime_image: Annotated[
        str | None,
        Field(description="the server's image by digest, made before; None: it is built if it isn't there"),
    ] = None


@dataclass(frozen=True)
class Packaged:
    """What a target installs, as a release names it."""

    digest: str
    blessing: Blessing | None
    size_bytes: int
    format: str
    image: str | None = None
    details: dict[str, Any] | None = None


def package(spec: PackageSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Write the host's bundle, or build the image, and bless it; what fails its blessing is not published."""
    source = inputs["servable"]
    plan = ReleasePlan.from_json(json.loads((inputs["plan"].folder / PLAN).read_bytes()))
    _require_fit(spec, plan, source)
    folder = context.folder("release")
    if spec.target == "host":
        found = _host_bundle(spec, plan, source, folder)
    else:
        from airflow_model_deploy.engine.steps.package_image import package_image

        found = package_image(spec, plan, source, folder, context)
    blessing = found.blessing
    # What was measured on this machine stays out of the release, so that its digest says only what it is.
    release = Release(
        plan=plan,
        bundle_digest=found.digest,
        blessing=blessing and replace(blessing, peak_memory_bytes=None, latency_ms=None),
        image=found.image,
    )
    (folder / RELEASE).write_bytes(canonical_json(release.to_json()))
    if spec.target == "kubernetes":
        write_objects(folder, plan, found.image)
    return StepOutput(
        folder=folder,
        description=Description(
            name=plan.name,
            kind="release",
            format=found.format,
            signature=source.manifest.description.signature,
            metrics={
                "bundle_digest": found.digest,
                "revision": revision_of(found.digest),
                "bundle_bytes": found.size_bytes,
            }
            | ({"image": found.image} if found.image else {}),
        ),
        main="servable",
        measurements=_measured(blessing) if blessing else {},
        details=(_asked(blessing) if blessing else {}) | (found.details or {}),
    )


def _measured(blessing: Blessing) -> dict[str, Any]:
    return {"latency_ms": blessing.latency_ms, "peak_memory_bytes": blessing.peak_memory_bytes}


def _asked(blessing: Blessing) -> dict[str, Any]:
    return {"golden_requests": blessing.golden_total, "matched": blessing.golden_matched}


def _require_fit(spec: PackageSpec, plan: ReleasePlan, source: Input) -> None:
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


def _host_bundle(spec: PackageSpec, plan: ReleasePlan, source: Input, folder: Path) -> Packaged:
    bundle = write_bundle(source.folder, folder / BUNDLE)
    blessing = bless(
        folder / BUNDLE,
        python=spec.python or sys.executable,
        memory_limit_bytes=plan.resources.memory_bytes,
        latency_ms=plan.objectives.latency_ms,
        latency_share=plan.objectives.latency_share,
        ready_timeout_s=spec.ready_timeout_s,
    )
    return Packaged(bundle.digest, blessing, bundle.size_bytes, "host-bundle")


def _reusable(spec: PackageSpec) -> str | None:
    # An image may have gone from its registry or engine since: building it again finds it, or makes it anew.
    return spec.target if spec.target == "host" else None


STEP = Step(
    name="package",
    summary="Package the release for its target and bless it.",
    spec=PackageSpec,
    function=package,
    inputs=("servable", "plan"),
    # The pinned versions in the bundle's requirements.txt are these.
    libraries=("docker", "httpx", *SERVER),
    mark=_reusable,
)
