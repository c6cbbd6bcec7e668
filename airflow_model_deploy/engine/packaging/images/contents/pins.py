"""Exact versions for an image, taken from what is installed here: what was tested is what is packaged."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packaging.requirements import Requirement

    from airflow_model_deploy.engine.packaging.images.contents.target import Target

DISTRIBUTION = "airflow-model-deploy"


def pins(names: Iterable[str]) -> tuple[str, ...]:
    """`name==version` of installed distributions, sorted.

    Raises:
        InputError: one isn't installed.
    """
    return tuple(sorted(f"{name}=={_installed(name, 'the image').version}" for name in names))


def closure(names: Iterable[str], target: Target) -> tuple[str, ...]:
    """Pins of some requirements and of all that they need in turn on the target, sorted.

    Args:
        names: requirements; extras are honoured, versions are the installed ones.
        target: decides which markers hold.

    Raises:
        InputError: a distribution isn't installed here, or a requirement can't be read.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(_requirement(name), "the image") for name in names]
    while waiting:
        requirement, asked_by = waiting.pop()
        name = canonical(requirement.name)
        new = {(name, extra) for extra in ("", *requirement.extras)} - seen
        seen |= new
        if not new:
            continue
        distribution = _installed(name, asked_by)
        found[name] = distribution.version
        extras = tuple(extra for _, extra in new)
        waiting += [(needed, name) for needed in _needs(distribution, extras, target)]
    return tuple(f"{name}=={found[name]}" for name in sorted(found))


def extra(name: str) -> tuple[str, ...]:
    """The names of what one of our own extras brings, sorted.

    Raises:
        InputError: there is no such extra.
    """
    distribution = _installed(DISTRIBUTION, "the image")
    offered = distribution.metadata.get_all("Provides-Extra") or []
    if name not in offered:
        raise InputError(
            f"{DISTRIBUTION} has no extra {name!r}", wanted=f"one of {', '.join(sorted(offered))}"
        )
    named = [_requirement(line) for line in distribution.requires or ()]
    chosen = (r for r in named if r.marker and r.marker.evaluate({"extra": name}))
    return tuple(sorted({canonical(r.name) for r in chosen if not r.marker.evaluate({"extra": ""})}))  # type: ignore[union-attr]


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def own_version() -> str:
    """Our distribution's version, asked of its metadata: importing the package could lead out of the engine.

    Raises:
        InputError: this is no installed distribution.
    """
    return _installed(DISTRIBUTION, "the image").version


def own_metadata() -> bytes:
    """Our distribution's METADATA: `model-deploy requirements` reads it in the image.

    Raises:
        InputError: this is no installed distribution.
    """
    text = _installed(DISTRIBUTION, "the image").read_text("METADATA")
    if text is None:
        raise InputError(f"{DISTRIBUTION} is installed without METADATA", remedy="Install it with pip.")
    return text.encode()


def _needs(
    distribution: metadata.Distribution, extras: tuple[str, ...], target: Target
) -> Iterator[Requirement]:
    for line in distribution.requires or ():
        requirement = _requirement(line)
        environments = [{**target.markers(), "extra": extra} for extra in extras]
        if requirement.marker is None or any(requirement.marker.evaluate(e) for e in environments):
            yield requirement


def _requirement(text: str) -> Requirement:
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError as error:
        raise InputError(
            "packages for an image can't be chosen",
            found="packaging isn't installed here",
            remedy="pip install packaging",
        ) from error
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise InputError(
            "a requirement of an image", found=repr(text), wanted="like s3fs or torch"
        ) from error


def _installed(name: str, asked_by: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"{asked_by} needs {name}",
            found="not installed here, so there is no version to pin",
            remedy=f"pip install {name}",
        ) from error
