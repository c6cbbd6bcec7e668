"""What an image's base must be like, and what of it decides the image; reads a config, knows no place of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import digest_of
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging.images.builder import (
    BASE_DIGEST_LABEL,
    CONTENT_KEY_LABEL,
    KIND_LABEL,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.packaging.images.spec import ImageSpec

PYTHON_LABEL = "io.model-deploy.python"
ARCHITECTURE_LABEL = "io.model-deploy.architecture"

# Every image gets its own of these, and the first two say how a base was built rather than what it is.
_OVERWRITTEN = frozenset({BASE_DIGEST_LABEL, CONTENT_KEY_LABEL, KIND_LABEL})
# What a container needs of a base's config. The rest says when, where and by which engine the base was built.
KEPT = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "ArgsEscaped",
)


def kept_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a base's config that containers of the image get; engines write what is unset in several ways."""
    run = config.get("config") or {}
    return {key: run[key] for key in KEPT if run.get(key)}


def base_key(config: Mapping[str, Any]) -> str:
    """What of a base decides the image, as a digest that every builder finds alike.

    Not the digest of its manifest: an engine is told that of an index, which is one for all processors.

    Args:
        config: as OCI has it: os, architecture, rootfs.diff_ids, config.
    """
    kept = kept_config(config)
    labels = {name: text for name, text in kept.pop("Labels", {}).items() if name not in _OVERWRITTEN}
    return digest_of(
        {
            "os": config.get("os"),
            "architecture": config.get("architecture"),
            "layers": list((config.get("rootfs") or {}).get("diff_ids") or ()),
            "config": kept | {"Labels": labels},
        }
    )


def wanted_architecture(spec: ImageSpec) -> str | None:
    """The processor that a spec's packages are for, as images name it; None where any will do."""
    return spec.settings.labels.get(ARCHITECTURE_LABEL)


def require_fit(spec: ImageSpec, name: str, config: Mapping[str, Any]) -> None:
    """Refuse a base that a spec's packages would not run on, or that runs commands of its own when built upon.

    Args:
        spec: the image's.
        name: how errors call the base.
        config: the base's, as for `base_key`.

    Raises:
        InputError: the Python is another (where the base says which it has), or the processor; or it has ONBUILD.
    """
    run = config.get("config") or {}
    if run.get("OnBuild"):
        raise InputError(
            f"the base {name} can't be built upon",
            found=f"ONBUILD {run['OnBuild'][0]}",
            wanted="a base without ONBUILD: its commands would run in the build, or be lost",
            remedy="Choose the variant of the base without ONBUILD",
        )
    _require_python(spec, name, run.get("Env") or ())
    wanted, found = wanted_architecture(spec), config.get("architecture")
    if wanted is not None and found != wanted:
        raise InputError(
            f"the base {name} is for another processor than the packages",
            found=found,
            wanted=wanted,
            remedy=f"Gather the packages for {found} (architecture), or choose a base for {wanted}",
        )


def _require_python(spec: ImageSpec, name: str, env: Any) -> None:
    wanted = spec.settings.labels.get(PYTHON_LABEL)
    said = dict(str(entry).partition("=")[::2] for entry in env).get("PYTHON_VERSION")
    if wanted is None or not said:  # only official images and their descendants say it
        return
    found = ".".join(said.split(".")[:2])
    if found != wanted:
        raise InputError(
            f"the base {name} has another Python than the packages are for",
            found=f"PYTHON_VERSION={said}",
            wanted=wanted,
            remedy=f"Choose a base with Python {wanted}, such as python:{wanted}-slim, or gather the packages for"
            f" {found} (python)",
        )
