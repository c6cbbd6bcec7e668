"""Files of an image from folders and from our own packages, in one stable order; decides nothing."""

from __future__ import annotations

import shutil
import uuid
from importlib import resources
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.packaging.host_release import server_files
from airflow_model_deploy.engine.packaging.images.contents.bytecode import compile_folder
from airflow_model_deploy.engine.packaging.images.contents.pins import own_metadata, own_version
from airflow_model_deploy.engine.packaging.images.spec import File

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from airflow_model_deploy.engine.packaging.images.contents.target import Target

_PACKAGE = "airflow_model_deploy"
SERVER_PACKAGE = "model_server"


def folder_files(folder: Path, prefix: str) -> tuple[File, ...]:
    """Every file of a folder as it lies below `prefix`, sorted by path.

    Args:
        folder: where they are read from, when the image is built.
        prefix: where they lie in the image, absolute.
    """
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.relative_to(folder).as_posix()
    )
    return tuple(
        File(
            f"{prefix.lstrip('/')}/{path.relative_to(folder).as_posix()}",
            path,
            executable=bool(path.stat().st_mode & 0o100),
        )
        for path in files
    )


def server_source(target: Target, scratch: Path, prefix: str) -> tuple[File, ...]:
    """The server's program as the package `model_server`, with its bytecode."""
    written = ((f"{SERVER_PACKAGE}/{path}", source.read_bytes()) for path, source in server_files())
    return _compiled(written, target, scratch, prefix)


def engine_source(target: Target, scratch: Path, prefix: str) -> tuple[File, ...]:
    """The engine without Airflow's wing, with its bytecode and this distribution's metadata."""
    return _compiled(_engine_files(), target, scratch, prefix)


def _engine_files() -> Iterator[tuple[str, bytes]]:
    root = resources.files(_PACKAGE)
    yield f"{_PACKAGE}/__init__.py", (root / "__init__.py").read_bytes()
    for path, source in _walk(root / "engine", f"{_PACKAGE}/engine/"):
        yield path, source.read_bytes()
    yield f"{_PACKAGE}-{own_version()}.dist-info/METADATA", own_metadata()


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.is_file() and not entry.name.startswith("."):
            yield prefix + entry.name, entry


def _compiled(
    content: Iterable[tuple[str, bytes]], target: Target, scratch: Path, prefix: str
) -> tuple[File, ...]:
    # Their bytes, not their paths: nothing is left in `scratch` that a later change of the source makes stale.
    folder = scratch / f".source-{uuid.uuid4().hex}"
    try:
        for path, source in content:
            written = folder / path
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_bytes(source)
        if target.has_our_bytecode:
            compile_folder(folder, prefix)
        return tuple(File(one.path, _bytes_of(one)) for one in folder_files(folder, prefix))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bytes_of(one: File) -> bytes:
    return one.source if isinstance(one.source, bytes) else one.source.read_bytes()
