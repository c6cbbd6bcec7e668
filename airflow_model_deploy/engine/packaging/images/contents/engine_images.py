"""The images that steps run in: the driver (acts on clusters and engines) and the worker (computes)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.packaging.images.contents.packages import gather
from airflow_model_deploy.engine.packaging.images.contents.pins import canonical, closure, extra, own_version
from airflow_model_deploy.engine.packaging.images.contents.runtime import (
    ENVIRONMENT,
    TITLE_LABEL,
    USER_AND_GROUP,
    VERSION_LABEL,
)
from airflow_model_deploy.engine.packaging.images.contents.sources import engine_source, folder_files
from airflow_model_deploy.engine.packaging.images.contents.target import target as target_of
from airflow_model_deploy.engine.packaging.images.foundation import ARCHITECTURE_LABEL, PYTHON_LABEL
from airflow_model_deploy.engine.packaging.images.spec import ImageSpec, Layer, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_model_deploy.engine.packaging.images.contents.target import Target

ENGINE_HOME = "/opt/model-deploy"
_PROGRAM = ("python3", "-m", "airflow_model_deploy.engine.cli")
_EVERY_STEP = ("fsspec", "pydantic", "psutil", "tqdm")
# The acting steps: clients of engines and clusters, probes, a monitor's arithmetic. No torch, no onnx.
_DRIVER = (*_EVERY_STEP, "docker", "httpx", "kubernetes", "numpy", "prometheus-client")
# Gigabytes that change with their own releases only.
_BULKY = ("torch", "triton", "nvidia-", "cuda-")


def driver_spec(
    base: str,
    scratch: Path,
    *,
    also: Sequence[str] = (),
    python: str | None = None,
    architecture: str | None = None,
) -> ImageSpec:
    """The engine for the acting steps.

    Args:
        base: reference of an image with CPython, such as "python:3.11-slim".
        scratch: a folder to gather packages in; see `runtime_spec`.
        also: more requirements, such as "s3fs" for a store; what is installed here is what they get.
        python: the base's Python; this interpreter's by default.
        architecture: the base's; this machine's by default.

    Raises:
        InputError: a package isn't installed here, or has no wheel for the base.
        UnavailableError: the package index doesn't answer.
    """
    return _spec("driver", base, scratch, (*_DRIVER, *also), target_of(python, architecture))


def worker_spec(
    base: str,
    scratch: Path,
    extras: Sequence[str] = ("engine",),
    *,
    also: Sequence[str] = (),
    python: str | None = None,
    architecture: str | None = None,
) -> ImageSpec:
    """The engine with what the computing steps import: the packages of this distribution's extras.

    Args:
        base: as for `driver_spec`.
        scratch: as for `driver_spec`.
        extras: of this distribution: "engine", "report", "hf".
        also: as for `driver_spec`.
        python: as for `driver_spec`.
        architecture: as for `driver_spec`.

    Raises:
        InputError: there is no such extra, a package isn't installed here, or has no wheel for the base.
        UnavailableError: the package index doesn't answer.
    """
    names = {name for one in extras for name in extra(one)}
    return _spec(
        "worker", base, scratch, (*_EVERY_STEP, *sorted(names), *also), target_of(python, architecture)
    )


def _spec(kind: str, base: str, scratch: Path, names: Sequence[str], target: Target) -> ImageSpec:
    pins = closure(names, target)
    bulky = tuple(pin for pin in pins if _is_bulky(pin))
    parts = {"bulk": bulky, "packages": tuple(pin for pin in pins if pin not in bulky)}
    gathered = {
        name: gather(part, target, scratch, prefix=ENGINE_HOME) for name, part in parts.items() if part
    }
    layers = [Layer(name, folder_files(part.folder, ENGINE_HOME)) for name, part in gathered.items()]
    # Last, so that a change of the engine moves nothing else.
    layers.append(Layer("engine", engine_source(target, scratch, ENGINE_HOME)))
    return ImageSpec(
        base=base,
        layers=tuple(layers),
        settings=Settings(
            entrypoint=_PROGRAM,
            command=("--help",),
            env={**ENVIRONMENT, "HOME": "/tmp", "PYTHONPATH": ENGINE_HOME},  # noqa: S108 - the one place that may be written
            user=USER_AND_GROUP,
            working_dir="/",
            labels={
                TITLE_LABEL: f"model-deploy-{kind}",
                VERSION_LABEL: own_version(),
                PYTHON_LABEL: target.python,
                ARCHITECTURE_LABEL: target.architecture,
            },
        ),
        kind=kind,
    )


def _is_bulky(pin: str) -> bool:
    name = canonical(pin.partition("==")[0])
    return any(name == bulk or (bulk.endswith("-") and name.startswith(bulk)) for bulk in _BULKY)
