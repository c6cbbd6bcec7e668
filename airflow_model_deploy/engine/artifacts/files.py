"""Folders as lists of files: what is in one, and whether it is what a manifest says."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from airflow_model_deploy.engine.artifacts.canonical import file_sha256
from airflow_model_deploy.engine.artifacts.manifest import FileEntry, Manifest
from airflow_model_deploy.engine.errors import InputError, IntegrityError


def list_files(folder: Path) -> tuple[FileEntry, ...]:
    """Hash every file of a folder, sorted by path; links and special files are refused."""
    entries = []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(
                f"{path} can't be part of an artifact",
                found="a link" if path.is_symlink() else "a special file",
                wanted="regular files and folders",
                remedy="Copy the content to where the link stands.",
            )
        if path.is_file():
            entries.append(
                FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, file_sha256(path))
            )
    return tuple(entries)


def check_relative(path: str, *, source: str) -> None:
    """Refuse a file path that would leave its folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise IntegrityError(
            f"{source} lists a file outside its folder",
            found=path,
            wanted="a relative path",
            remedy="Don't use this artifact.",
        )


def check_file(path: Path, entry: FileEntry, *, source: str) -> None:
    """Compare one file with its entry: present, no link, same size, same sha256."""
    remedy = "Run the step that made it again; it will be published anew."
    if path.is_symlink() or not path.is_file():
        raise IntegrityError(
            f"{source}: {entry.path} is missing or no regular file",
            wanted=f"{entry.size} bytes, sha256 {entry.sha256}",
            remedy=remedy,
        )
    size = path.stat().st_size
    if size != entry.size:
        raise IntegrityError(
            f"{source}: {entry.path} has another size",
            found=f"{size} bytes",
            wanted=f"{entry.size} bytes",
            remedy=remedy,
        )
    found = file_sha256(path)
    if found != entry.sha256:
        raise IntegrityError(
            f"{source}: {entry.path} has another sha256", found=found, wanted=entry.sha256, remedy=remedy
        )


def check_folder(folder: Path, manifest: Manifest, *, source: str) -> None:
    """Compare a folder with its manifest, file by file."""
    for entry in manifest.files:
        check_relative(entry.path, source=source)
        check_file(folder / entry.path, entry, source=source)


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside, sync, rename: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
