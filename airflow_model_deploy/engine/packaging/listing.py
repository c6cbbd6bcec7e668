"""A folder against the list that came with it: nothing missing, changed, added, linked or outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import check_relative, list_files
from airflow_model_deploy.engine.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NAMES_SHOWN = 5


def check_listing(folder: Path, wanted: Mapping[str, str], *, index: str, thing: str) -> None:
    """Compare every file of `folder` but `index` with `wanted` (relative path -> hex sha256).

    Raises:
        IntegrityError: names the files that are missing, changed or not listed, the link, or the bad path.
    """
    for path in wanted:
        check_relative(path, source=str(folder / index))
    try:
        there = {entry.path: entry.sha256 for entry in list_files(folder) if entry.path != index}
    except InputError as e:  # a link or a special file
        raise IntegrityError(f"{thing} {folder} can't be verified", found=str(e)) from e
    if there != wanted:
        raise IntegrityError(
            f"{thing} {folder} isn't what was packaged",
            found=_differences(there, wanted),
            remedy=f"Copy or package it again; nothing may be added to a {thing}",
        )


def _differences(there: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    both = there.keys() & wanted.keys()
    parts = {
        "changed": sorted(path for path in both if there[path] != wanted[path]),
        "missing": sorted(wanted.keys() - there.keys()),
        "not listed": sorted(there.keys() - wanted.keys()),
    }
    return "; ".join(f"{what}: {', '.join(paths[:_NAMES_SHOWN])}" for what, paths in parts.items() if paths)
