"""The image of a release: the server's image if it isn't there, the model's on top, and its blessing on an engine."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers import Limits, answers, engine_architecture
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.packaging import bless_image
from airflow_model_deploy.engine.packaging.images import (
    Builder,
    Built,
    DockerBuilder,
    OciBuilder,
    RegistryOptions,
)
from airflow_model_deploy.engine.packaging.images.contents import (
    default_base,
    model_spec,
    package_cache,
    runtime_spec,
)
from airflow_model_deploy.engine.steps.connections import credentials_of, engine_of, insecure_of
from airflow_model_deploy.engine.steps.layout import BUNDLE
from airflow_model_deploy.engine.steps.package import Packaged

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_model_deploy.engine.packaging import Blessing, ReleasePlan
    from airflow_model_deploy.engine.steps.base import Input, StepContext
    from airflow_model_deploy.engine.steps.package import PackageSpec

logger = logging.getLogger(__name__)

RUNTIME = "model-server"


def package_image(
    spec: PackageSpec, plan: ReleasePlan, source: Input, folder: Path, context: StepContext
) -> Packaged:
    """Build (or find) the two images, bless the model's; the servable goes into the release too.

    Where no engine answers, a release for a cluster stays unblessed: its first pod is asked before it gets traffic.

    Raises:
        InputError: no registry was named where nothing else could carry the image to its target.
        UnavailableError: no engine answers and the target is one, or a registry can't be reached.
        GateError: the image gives wrong answers, or passes a limit.
    """
    builder = choose_builder(spec, context)
    runtime = spec.runtime_image or _build_runtime(builder, spec, context)
    built = builder.build(model_spec(runtime, source.folder), destination(spec, plan.name), log=logger.info)
    logger.info("image %s%s", built.reference, " (was there already)" if built.existed else "")
    blessing = _bless(spec, plan, built, source, context)
    shutil.copytree(source.folder, folder / BUNDLE / "servable")
    return Packaged(
        digest=built.digest,
        blessing=blessing,
        size_bytes=built.size_bytes,
        format="image",
        image=built.reference,
        details={
            "image": built.reference,
            "runtime_image": runtime,
            "builder": builder.name,
            "existed": built.existed,
            "uploaded_bytes": built.uploaded_bytes,
            "blessed": blessing is not None,
        },
    )


def choose_builder(spec: PackageSpec, context: StepContext) -> Builder:
    """Return the builder that is named; `auto`: the engine where one answers, else the one without."""
    engine, credentials = engine_of(context), credentials_of(context)
    if spec.backend == "docker" or (spec.backend == "auto" and answers(engine)):
        if spec.target == "kubernetes" and not spec.registry:
            raise _no_registry("a cluster pulls its images from one")
        return DockerBuilder(engine, credentials)
    if not spec.registry:
        reason = (
            "backend 'oci' pushes"
            if spec.backend == "oci"
            else "without a Docker engine, nothing else holds it"
        )
        raise _no_registry(reason)
    return OciBuilder(credentials, RegistryOptions(insecure=insecure_of(context)))


def destination(spec: PackageSpec, name: str) -> str:
    """Return the repository of an image; below "local/" it stays on the engine."""
    return f"{(spec.registry or 'local').rstrip('/')}/{name}"


def _build_runtime(builder: Builder, spec: PackageSpec, context: StepContext) -> str:
    contents = runtime_spec(
        spec.base_image or default_base(),
        # An engine elsewhere may be of another kind than this machine.
        architecture=engine_architecture(engine_of(context)) if builder.name == "docker" else None,
        # It outlives the step: only the first image downloads the server's packages.
        scratch=package_cache(),
    )
    return builder.build(contents, destination(spec, RUNTIME), log=logger.info).reference


def _bless(
    spec: PackageSpec, plan: ReleasePlan, built: Built, source: Input, context: StepContext
) -> Blessing | None:
    engine = engine_of(context)
    if not answers(engine):
        if spec.target == "kubernetes":
            logger.warning(
                "no Docker engine answers: the image is blessed in the cluster, before its rollout"
            )
            return None
        raise UnavailableError(
            f"the image {built.reference} can't be blessed",
            found="no Docker engine answers",
            wanted="the engine that the release is for",
            remedy="Start it, or name it (DOCKER_HOST, or the operator's `docker`); then run this again.",
        )
    return bless_image(
        engine,
        built.reference,
        source.folder,
        credentials=credentials_of(context),
        limits=Limits(memory_bytes=plan.resources.memory_bytes, cpus=plan.resources.cpu),
        memory_limit_bytes=plan.resources.memory_bytes,
        latency_ms=plan.objectives.latency_ms,
        latency_share=plan.objectives.latency_share,
        ready_timeout_s=spec.ready_timeout_s,
        log=logger.info,
    )


def _no_registry(why: str) -> InputError:
    return InputError(
        "no registry is named for the image",
        found="registry: none",
        wanted="'host[:port][/path]'",
        remedy=f"Name one: {why}.",
    )
