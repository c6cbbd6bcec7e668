"""The versions of what a step runs with."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of distributions, or of those that provide a top-level module; unknown ones: "?"."""
    return {name: _version(name) for name in sorted({"airflow-model-deploy", *names})}


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        providers = packages_distributions().get(name)
        return version(providers[0]) if providers else "?"
