"""The content-addressed store: publishes folders as artifacts and gives them back verified.

Layout below the store's URL:
    artifacts/sha256-<hex>/files/…  an artifact's files
    artifacts/sha256-<hex>/manifest.json   written last; makes the artifact exist
    cache/<step>/<key>.json         the result of a pure step
    choices/<name>-<key>.json       a choice made by measurement, pinned
    checkpoints/<step>/<key>/…      how far an unfinished step got; gone once it has published
    runs/…/<id>.json                what one run of a step left for its runner
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from airflow_model_deploy.engine.artifacts.canonical import canonical_json, file_sha256
from airflow_model_deploy.engine.artifacts.files import (
    check_file,
    check_folder,
    check_relative,
    list_files,
    write_atomically,
)
from airflow_model_deploy.engine.artifacts.manifest import Description, FileEntry, Manifest
from airflow_model_deploy.engine.artifacts.places import (
    check_url,
    file_system_options,
    is_local,
    storing,
    upload_options,
)
from airflow_model_deploy.engine.artifacts.reference import Reference
from airflow_model_deploy.engine.errors import InputError, IntegrityError, ModelDeployError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_AT_ONCE = 4  # files on their way to or from a store elsewhere: most of the time of a small one is waiting
_TEMPORARY, _ABANDONED_SECONDS = ".tmp", 3600.0
MANIFEST, FILES = "manifest.json", "files"


class Store:
    """Artifacts below one URL.

    Args:
        url: where: "file:///srv/models" or a plain path; "s3://bucket/folder" and other fsspec URLs take `options`.
        options: what the file system needs (credentials); never written anywhere.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        check_url(url)
        self.url = _normalised(url)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url, **file_system_options(self.url, options))
        except (ImportError, ValueError) as error:
            raise InputError(
                f"the store URL {url} can't be opened",
                found=str(error),
                wanted="a URL whose file system fsspec knows here",
                remedy="Install the file system's package, or name another store.",
            ) from error
        self._local = is_local(self.url)

    # -- artifacts ------------------------------------------------------------------------------------------

    def publish(self, folder: Path, description: Description) -> tuple[Reference, Manifest]:
        """Publish a folder: files first, verified as they arrive, the manifest last.

        Publishing the same content again changes nothing but what is missing or damaged: an attempt that died
        half-way is completed.
        """
        manifest = Manifest(description=description, files=list_files(folder))
        reference = self.reference(manifest.digest)
        target = self._path(reference)
        with storing(self.url):
            self._each(manifest.files, lambda entry: self._bring(folder / entry.path, target, entry))
            if not self._has_valid_manifest(reference):
                self._write(f"{target}/{MANIFEST}", canonical_json(manifest.to_json()))
            if self._local:
                _sweep(Path(target) / FILES, {entry.path for entry in manifest.files})
        return reference, manifest

    def reference(self, digest: str) -> Reference:
        """Return the reference that an artifact of this digest has here."""
        return Reference(uri=f"{self.url}/artifacts/{digest.replace(':', '-')}", digest=digest)

    def manifest(self, reference: Reference) -> Manifest:
        """Read an artifact's manifest and check it against the reference's digest."""
        path = f"{self._path(reference)}/{MANIFEST}"
        value = self._read(path)
        if value is None:
            raise InputError(
                f"no artifact at {reference.uri}",
                wanted=reference.digest,
                remedy="Check the uri, or run the step that publishes it again.",
            )
        manifest = Manifest.from_json(value, source=reference.uri)
        if manifest.digest != reference.digest:
            raise IntegrityError(
                f"the manifest at {reference.uri} is not the one asked for",
                found=manifest.digest,
                wanted=reference.digest,
                remedy="Run the step that made it again.",
            )
        return manifest

    def fetch(self, reference: Reference, cache: Path | None = None) -> tuple[Path, Manifest]:
        """Return a local folder with an artifact's files, each verified, and its manifest.

        A store on this machine is read in place. Others are copied below `cache` first, and need one.
        """
        manifest = self.manifest(reference)
        if self._local:
            folder = Path(self._path(reference)) / FILES
            check_folder(folder, manifest, source=reference.uri)
            return folder, manifest
        if cache is None:
            raise ValueError(f"the store {self.url} is elsewhere: a folder to copy to is needed")
        folder = cache / reference.short
        self._each(manifest.files, lambda entry: self._copy(reference, entry, folder))
        return folder, manifest

    def read_file(self, reference: Reference, path: str) -> bytes:
        """Return one file of an artifact, verified; for a small one whose neighbours are large.

        Raises:
            InputError: the artifact has no such file.
            IntegrityError: it isn't what the manifest says.
        """
        entry = next((one for one in self.manifest(reference).files if one.path == path), None)
        if entry is None:
            raise InputError(f"the artifact {reference.uri}", found=f"no file {path}", wanted=path)
        with storing(self.url):
            content: bytes = self._fs.cat_file(f"{self._path(reference)}/{FILES}/{path}")
        found = hashlib.sha256(content).hexdigest()
        if found != entry.sha256:
            raise IntegrityError(f"{path} of {reference.uri}", found=found, wanted=entry.sha256)
        return content

    def has(self, reference: Reference) -> bool:
        """Tell whether an artifact is there with every file in its full size (contents: `fetch`)."""
        if not self._has_valid_manifest(reference):
            return False
        folder = f"{self._path(reference)}/{FILES}"
        files = self.manifest(reference).files
        return all(self._each(files, lambda entry: self._size(f"{folder}/{entry.path}") == entry.size))

    def verifies(self, reference: Reference) -> bool:
        """Tell whether an artifact is there and whole: contents where they are on this machine, else sizes."""
        if not self._local:
            return self.has(reference)
        try:
            self.fetch(reference)
        except ModelDeployError:
            return False
        return True

    # -- small JSON files beside the artifacts --------------------------------------------------------------

    def read_json(self, name: str) -> Any:
        """Return a small file's value, or None where there is none or only a damaged one."""
        return self._read(f"{self._root}/{name}")

    def write_json(self, name: str, value: Any) -> None:
        """Write a small file; a reader sees all of it or none."""
        with storing(self.url):
            self._write(f"{self._root}/{name}", json.dumps(value, indent=1, sort_keys=True).encode())

    # -- single files beside the artifacts ------------------------------------------------------------------

    def write_file(self, name: str, source: Path) -> None:
        """Replace a file; a reader sees the old one or the new."""
        target = f"{self._root}/{name}"
        with storing(self.url):
            self._put(source, target, source.stat().st_size)
            if self._local:
                _sweep(Path(target).parent, set())

    def local_file(self, name: str, scratch: Path) -> Path | None:
        """Return where a file can be read on this machine, copied to `scratch` from elsewhere; None: there is none."""
        path = f"{self._root}/{name}"
        if self._size(path) is None:
            return None
        if self._local:
            return Path(path)
        target = scratch / Path(name).name
        with storing(self.url):
            try:
                self._fs.get_file(path, str(target))
            except FileNotFoundError:  # removed since
                return None
        return target

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all in it, where it is there."""
        with storing(self.url), suppress(FileNotFoundError, NotADirectoryError):
            self._fs.rm(f"{self._root}/{name}", recursive=True)

    # -- below ----------------------------------------------------------------------------------------------

    def _path(self, reference: Reference) -> str:
        prefix = f"{self.url}/artifacts/"
        if not reference.uri.startswith(prefix):
            raise InputError(
                f"artifact {reference.uri} is in another store",
                wanted=f"an artifact below {self.url}",
                remedy="Run the steps of one pipeline with the same `store`.",
            )
        return f"{self._root}/artifacts/{reference.digest.replace(':', '-')}"

    def _has_valid_manifest(self, reference: Reference) -> bool:
        value = self._read(f"{self._path(reference)}/{MANIFEST}")
        if value is None:
            return False
        try:
            return Manifest.from_json(value, source=reference.uri).digest == reference.digest
        except IntegrityError:
            return False

    def _each(self, entries: Iterable[FileEntry], work: Callable[[FileEntry], Any]) -> list[Any]:
        if self._local:
            return [work(entry) for entry in entries]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(work, entries))

    def _bring(self, source: Path, target: str, entry: FileEntry) -> None:
        place = f"{target}/{FILES}/{entry.path}"
        if not self._holds(place, entry):
            self._put(source, place, entry.size)

    def _copy(self, reference: Reference, entry: FileEntry, folder: Path) -> None:
        check_relative(entry.path, source=reference.uri)
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with storing(self.url), suppress(FileNotFoundError):  # which check_file tells
            self._fs.get_file(f"{self._path(reference)}/{FILES}/{entry.path}", str(target))
        check_file(target, entry, source=reference.uri)

    def _holds(self, path: str, entry: FileEntry) -> bool:
        if self._size(path) != entry.size:
            return False
        # Elsewhere the content would have to be fetched to be hashed; there a size is taken at its word.
        return not self._local or file_sha256(Path(path)) == entry.sha256

    def _size(self, path: str) -> int | None:
        with storing(self.url):
            try:
                found = self._fs.info(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return int(found["size"]) if found["type"] == "file" else None

    def _put(self, source: Path, target: str, size: int) -> None:
        if self._local:
            _copy_atomically(source, Path(target))
        else:
            self._fs.put_file(str(source), target, **upload_options(self.url))
        found = self._size(target)
        if found != size:
            raise UnavailableError(
                f"{target} did not arrive whole",
                found=f"{found} bytes",
                wanted=f"{size} bytes",
                remedy="Run the step again.",
            )

    def _write(self, path: str, content: bytes) -> None:
        if self._local:
            write_atomically(Path(path), content)
        else:
            self._fs.pipe_file(path, content)

    def _read(self, path: str) -> Any:
        with storing(self.url):
            try:
                content = self._fs.cat_file(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            return json.loads(content)
        except ValueError:
            return None


def _copy_atomically(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}.", suffix=_TEMPORARY, delete=False
    ) as stream:
        temporary = Path(stream.name)
    try:
        shutil.copyfile(source, temporary)
        temporary.chmod(0o644)
        with temporary.open("rb") as copied:  # a manifest must not outlive a power cut that its files don't
            os.fsync(copied.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(folder: Path, published: set[str]) -> None:
    """Remove the unfinished copies of publications that were killed; a young one may be another's under way."""
    for left in folder.rglob(f".*{_TEMPORARY}"):
        with suppress(FileNotFoundError):
            old = time.time() - left.stat().st_mtime > _ABANDONED_SECONDS
            if old and left.relative_to(folder).as_posix() not in published:
                left.unlink()


def _normalised(url: str) -> str:
    if "://" in url:
        return url.rstrip("/")
    return f"file://{Path(url).expanduser().absolute()}".rstrip("/")
