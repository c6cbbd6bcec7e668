"""Real images on the real engine for tests: the runtime is built once and kept by its content."""

from __future__ import annotations

import contextlib
import getpass
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers import connect
from airflow_model_deploy.engine.packaging.images import DockerBuilder, model_spec, runtime_spec
from tests.engine.containers.support import remove_images

if TYPE_CHECKING:
    from airflow_model_deploy.engine.containers import Engine
    from airflow_model_deploy.engine.packaging.images import Builder, Built, ImageSpec

RUNTIME = "tests/model-server"


def runtime(base: str) -> ImageSpec:
    """The runtime's spec; its packages are gathered once for all runs."""
    scratch = Path(tempfile.gettempdir()) / f"model-deploy-tests-{getpass.getuser()}" / "runtime"
    return runtime_spec(base, scratch=scratch)


def build_runtime(builder: Builder, base: str, registry: str | None = None) -> Built:
    destination = f"{registry}/{RUNTIME}-{builder.name}" if registry else RUNTIME
    return builder.build(runtime(base), destination, log=print)


def build_model(engine: Engine, base: str, servable: Path, destination: str) -> Built:
    """A model image that stays on the engine."""
    builder = DockerBuilder(engine)
    lower = build_runtime(builder, base)
    with contextlib.closing(connect(engine)) as client:  # earlier ones, of other versions of the server
        remove_images(client, f"{RUNTIME}:", keep=f"{RUNTIME}:{lower.tag}")
    return builder.build(model_spec(lower.reference, servable), destination, log=print)
