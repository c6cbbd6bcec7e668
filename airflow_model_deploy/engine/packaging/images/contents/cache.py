"""Gathered packages that are kept for the next image: where, whether they are still whole, and what was left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import digest_of, list_files, write_atomically
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "airflow-model-deploy"
_ABANDONED_S = 24 * 3600
_PARTIAL = ".partial-"


def package_cache() -> Path:
    """A folder for packages that outlives the process and that only this user writes.

    Below XDG_CACHE_HOME or ~/.cache; where that can't be written, below the system's temporary folder.
    """
    places = [Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}"]
    with contextlib.suppress(RuntimeError):  # a user without a home
        places.insert(0, Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _NAME)
    for place in places:
        with contextlib.suppress(OSError):
            folder = place / "packages"
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
            # In a shared temporary folder somebody else may have been there first.
            if all(_is_ours(one) for one in (place, folder)) and os.access(folder, os.W_OK):
                return folder
    return Path(tempfile.mkdtemp(prefix=f"{_NAME}-"))


def is_whole(folder: Path) -> bool:
    """Whether a finished folder is there and what it was; one that is damaged is removed."""
    if not folder.is_dir():
        return False
    try:
        if _note(folder).read_text(encoding="ascii") == _digest(folder):
            return True
    except (OSError, ValueError, InputError):  # no note, or something that is no file was put there
        pass
    doomed = _partial(folder.parent)
    with contextlib.suppress(OSError):  # another process was quicker
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return False


@contextlib.contextmanager
def finishing(folder: Path) -> Iterator[Path]:
    """Yield the path of a folder to fill; it gets its name when the block ends well, and else goes away."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    # Not by the process' number: two containers that share the disk both call theirs 1.
    partial = _partial(folder.parent)
    try:
        yield partial
        write_atomically(_note(folder), _digest(partial).encode("ascii"))
        _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (os.getuid(), 0) and not found.st_mode & 0o002


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.sha256")


def _partial(parent: Path) -> Path:
    return parent / f"{_PARTIAL}{uuid.uuid4().hex}"


def _digest(folder: Path) -> str:
    """Of every file's path, content and right to be run: what an image gets of it."""
    return digest_of(
        [
            [entry.path, entry.sha256, bool((folder / entry.path).stat().st_mode & 0o100)]
            for entry in list_files(folder)
        ]
    )


def _publish(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        # Another process has finished the same folder meanwhile: the bytes are the same.
        if not folder.is_dir():
            raise


def _remove_abandoned(parent: Path) -> None:
    """What processes that were killed have left."""
    for path in parent.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)
