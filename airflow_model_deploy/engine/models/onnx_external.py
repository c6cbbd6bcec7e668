"""Weights that lie in files beside an ONNX file: which they are, whether they may be used, how they travel along."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import file_sha256
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.onnx_file import external_locations, open_onnx

if TYPE_CHECKING:
    from os import stat_result

_WANTED = "a plain file inside the model's folder"


def external_files(path: str | Path) -> tuple[str, ...]:
    """The files that hold a model's weights beside its own, relative to its folder, sorted.

    Raises:
        InputError: one lies outside of the folder, is a link, is missing or cut off.
    """
    path = Path(path)
    found = set()
    for location, offset, length in external_locations(open_onnx(path)):
        if location != path.name:  # `open_onnx` names the file itself, too
            check_location(path, location, offset, length)
            found.add(location)
    return tuple(sorted(found))


def model_files(path: str | Path) -> tuple[Path, ...]:
    """An ONNX file and those that hold its weights."""
    path = Path(path)
    return (path, *(path.parent / location for location in external_files(path)))


def copy_onnx(source: str | Path, target: str | Path) -> Path:
    """Copy an ONNX file, and the files that hold its weights beside it under the names that it gives them."""
    source, target = Path(source), Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for location in external_files(source):
        place = target.parent / location
        if place == target:
            raise InputError(
                f"external data of {source}",
                found=location,
                wanted=f"another name than that of the copy, {target.name}",
                remedy="Save the model again with its weights in a file called otherwise.",
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / location, place)
    return Path(shutil.copyfile(source, target))  # last: a copy that was cut short isn't taken for a model


def onnx_sha256(path: str | Path) -> str:
    """The sha256 of one file; of a model in several that of sha256sum's listing, sorted by path."""
    path = Path(path)
    others = external_files(path)
    if not others:
        return file_sha256(path)
    lines = (f"{file_sha256(path.parent / name)}  {name}\n" for name in sorted((path.name, *others)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_location(path: Path, location: str, offset: int, length: int | None) -> stat_result:
    """Raise InputError unless a tensor's bytes lie in a plain file inside the folder of the model `path`."""
    thing = f"external data of {path}"
    windows = PureWindowsPath(location)
    odd = bool(windows.anchor) or "\\" in location or "\0" in location
    if odd or {"", ".", ".."} & set(location.split("/")):
        raise InputError(
            thing, found=f"location {location!r}", wanted=_WANTED, remedy="Save it beside the model."
        )
    step = path.parent
    for part in PurePosixPath(location).parts:
        step = step / part
        if step.is_symlink():
            raise InputError(
                thing, found=f"{location} is a symbolic link", wanted=_WANTED, remedy="Copy the file."
            )
    if not step.is_file():
        raise InputError(
            thing, found=f"{location} is missing", wanted=_WANTED, remedy="Copy it beside the model."
        )
    status = step.stat()
    end = offset + (length or 0)
    if offset < 0 or (length or 0) < 0 or end > status.st_size:
        raise InputError(
            thing,
            found=f"{location} of {status.st_size} bytes, of which {offset}..{end} are wanted",
            wanted="the complete file",
            remedy="Copy it again.",
        )
    return status
