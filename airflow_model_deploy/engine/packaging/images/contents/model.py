"""The model image: a servable on top of a runtime image, in layers that move only when their files change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import list_files
from airflow_model_deploy.engine.packaging.images.contents.runtime import (
    SERVABLE_HOME,
    TITLE_LABEL,
    VERSION_LABEL,
)
from airflow_model_deploy.engine.packaging.images.spec import File, ImageSpec, Layer, Settings
from airflow_model_deploy.engine.packaging.servable import read_servable

if TYPE_CHECKING:
    from pathlib import Path

# A file this large travels alone: one that didn't change is not sent again because of a neighbour that did.
LARGE_BYTES = 64 * 2**20
SERVABLE_LABEL = "io.model-deploy.servable-digest"
MODEL_LABEL = "io.model-deploy.model"
PRECISION_LABEL = "io.model-deploy.precision"


def model_spec(runtime: str, servable: Path) -> ImageSpec:
    """A verified servable on a runtime image.

    The weights are not compressed: they hardly shrink, and it takes longer than sending them.

    Args:
        runtime: reference of an image that `runtime_spec` describes; by digest, so that it can't change.
        servable: the folder; read again, file by file, when the image is built.

    Raises:
        InputError: there is no servable.
        IntegrityError: it isn't what its index says.
    """
    read = read_servable(servable)
    entries = list_files(servable)
    small = tuple(e.path for e in entries if e.size < LARGE_BYTES)
    large = tuple(e.path for e in entries if e.size >= LARGE_BYTES)
    layers = [Layer("servable", tuple(_file(servable, path) for path in small), compressed=False)]
    layers += [
        Layer(f"servable large {number}", (_file(servable, path),), compressed=False)
        for number, path in enumerate(large, 1)
    ]
    return ImageSpec(
        base=runtime,
        layers=tuple(layers),
        settings=Settings(
            labels={
                TITLE_LABEL: read.name,
                VERSION_LABEL: read.version,
                SERVABLE_LABEL: read.digest,
                MODEL_LABEL: read.name,
                PRECISION_LABEL: read.precision,
            }
        ),
        kind="model",
    )


def _file(servable: Path, path: str) -> File:
    return File(f"{SERVABLE_HOME.lstrip('/')}/{path}", servable / path)
