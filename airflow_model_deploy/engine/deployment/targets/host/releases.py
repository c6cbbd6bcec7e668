"""Installed bundles: verified while they are copied, published by one rename, never changed afterwards."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.host.files import read_desired, sync_folder
from airflow_model_deploy.engine.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.host.service import Service

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_REVISION = re.compile(r"[0-9a-f]{12}")
_LEFTOVER_SECONDS = 3600.0


def install(bundle: Path, service: Service) -> str:
    """Verify a bundle, copy it to the service's releases and return its revision.

    Installing it again does nothing; a damaged copy is replaced.

    Raises:
        InputError: the folder isn't a bundle.
        IntegrityError: a file that isn't what SHA256SUMS says, is not listed, or is a link.
    """
    sums, text = _read_sums(bundle)
    revision = hashlib.sha256(text).hexdigest()[:12]
    _refuse_unlisted(bundle, sums)
    target = service.releases / revision
    if target.is_dir() and _is_intact(target, sums, text):
        for path, digest in sums.items():
            _refuse_other(bundle / path, path, digest, _hash(bundle / path))
        return revision
    service.releases.mkdir(parents=True, exist_ok=True)
    temporary = service.releases / f".tmp-{uuid.uuid4().hex}"
    try:
        for path, digest in sums.items():
            _refuse_other(bundle / path, path, digest, _copy(bundle / path, temporary / path))
        (temporary / SUMS).write_bytes(text)
        _sync_tree(temporary)
        if target.exists():
            target.rename(service.releases / f".tmp-{uuid.uuid4().hex}-damaged")
        temporary.rename(target)
        sync_folder(service.releases)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return revision


def prune(service: Service, keep: int = 3) -> list[str]:
    """Remove old releases but the `keep` newest, never one that serves or may have to; return what went."""
    desired = read_desired(service)
    held = {desired.live, desired.previous, desired.candidate}
    installed = sorted(
        (folder for folder in service.releases.glob("*") if _REVISION.fullmatch(folder.name)),
        key=lambda folder: folder.stat().st_mtime,
        reverse=True,
    )
    spare = [folder for folder in installed if folder.name not in held]
    room = max(0, keep - (len(installed) - len(spare)))
    removed = spare[room:]
    for folder in removed:
        # Renamed first: nobody may find half a release under its name.
        folder.rename(service.releases / f".tmp-{uuid.uuid4().hex}-{folder.name}")
        for log in (service.folder / "logs").glob(f"{folder.name}.log*"):
            log.unlink(missing_ok=True)
    for leftover in service.releases.glob(".tmp-*"):
        # A young one without a revision's name may be somebody's installation under way.
        if "-" in leftover.name[5:] or time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
    return [folder.name for folder in removed]


def _read_sums(bundle: Path) -> tuple[dict[str, str], bytes]:
    try:
        text = (bundle / SUMS).read_bytes()
    except OSError as error:
        raise InputError(f"bundle {bundle}", found=error, wanted=f"a folder with {SUMS}") from error
    sums: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or {"", ".", ".."} & set(match[2].split("/")) or match[2] == SUMS:
            raise InputError(
                f"{SUMS} of {bundle}",
                found=repr(line),
                wanted="lines of '<sha256>  <path inside the bundle>'",
            )
        sums[match[2]] = match[1]
    for needed in ("start.py", "server/model_server/supervisor.py"):
        if needed not in sums:
            raise InputError(f"bundle {bundle}", found=f"no {needed}", wanted="a host release bundle")
    return sums, text


def _refuse_unlisted(bundle: Path, sums: dict[str, str]) -> None:
    for path in _walk(bundle):
        if path not in sums and path != SUMS:
            raise IntegrityError(
                f"{path} in bundle {bundle}",
                found="a file that SHA256SUMS doesn't list",
                remedy="Build it again.",
            )


def _walk(folder: Path) -> list[str]:
    paths: list[Path] = []
    for parent, folders, files in os.walk(folder):
        # A link to a folder isn't entered; it counts as a file, and no file may be a link.
        links = [name for name in folders if Path(parent, name).is_symlink()]
        paths += [Path(parent, name) for name in files + links]
    return [path.relative_to(folder).as_posix() for path in paths]


def _refuse_other(file: Path, path: str, wanted: str, found: str) -> None:
    if found != wanted:
        raise IntegrityError(
            f"{path} in bundle {file.parent}",
            found=found,
            wanted=wanted,
            remedy="Build or copy the bundle again.",
        )


def _hash(file: Path) -> str:
    if file.is_symlink():
        return "a symbolic link"
    if not file.is_file():
        return "no file"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> str:
    """Copy a file and return the digest of what was written: what was checked is what runs."""
    if source.is_symlink() or not source.is_file():
        return _hash(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(1 << 20):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o444)
    return digest.hexdigest()


def _is_intact(target: Path, sums: dict[str, str], text: bytes) -> bool:
    if (target / SUMS).is_symlink() or _hash(target / SUMS) != hashlib.sha256(text).hexdigest():
        return False
    listed = all(_hash(target / path) == digest for path, digest in sums.items())
    return listed and set(_walk(target)) == {*sums, SUMS}


def _sync_tree(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        sync_folder(Path(parent))
