"""An OCI image layout, which is a folder, as a place of images; whole after every write, or as it was before."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import write_atomically
from airflow_model_deploy.engine.errors import InputError, IntegrityError, UnavailableError
from airflow_model_deploy.engine.packaging.images.blobs import (
    BLOCK,
    MAX_JSON_BYTES,
    OCI_INDEX,
    Descriptor,
    MissingBlobError,
    RawManifest,
    json_object,
    to_json,
    verified,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.packaging.images.blobs import Content

_TAG = "org.opencontainers.image.ref.name"
_VERSION = {"imageLayoutVersion": "1.0.0"}


class Layout:
    """A layout on disk; made by the first write.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def find_manifest(self, reference: str) -> RawManifest | None:
        """Read a manifest or index by tag or digest, verified; None where there is none."""
        for entry in self._entries():
            named = (entry.get("annotations") or {}).get(_TAG)
            if reference in (named, entry.get("digest")):
                return self._manifest(str(entry.get("digest")), str(entry.get("mediaType")))
        # A manifest that only an index in the layout names; its media type stands in itself.
        if reference.startswith("sha256:") and self._blob(reference).is_file():
            found = self._manifest(reference, "")
            return RawManifest(str(found.json(reference).get("mediaType", "")), found.data)
        return None

    def read_manifest(self, reference: str | None) -> RawManifest:
        """Read a manifest or index by tag or digest, or the only one; InputError where there is none."""
        if not (self.path / "oci-layout").is_file():
            raise InputError(f"{self.path} is no OCI layout", wanted="a folder with a file oci-layout")
        entries = self._entries()
        if reference is None and len(entries) == 1:
            return self._manifest(str(entries[0].get("digest")), str(entries[0].get("mediaType")))
        found = self.find_manifest(reference) if reference else None
        if found is None:
            tags = sorted(str((entry.get("annotations") or {}).get(_TAG, "-")) for entry in entries)
            raise InputError(
                f"{self.path} has no image {reference or 'to choose without a tag or digest'}",
                found=f"{len(entries)} images: {', '.join(tags[:5])}",
                wanted="a tag or digest that is there",
            )
        return found

    def content(self, descriptor: Descriptor) -> Content:
        """The content of a blob; reading all of it verifies it."""
        return _FileContent(self._blob(descriptor.digest), descriptor)

    def put(self, descriptor: Descriptor, content: Content, *, mount_from: str | None = None) -> int:  # noqa: ARG002
        """Write a blob unless it is here, verified, by a temporary file and a rename; return the bytes written."""
        path = self._blob(descriptor.digest)
        if path.is_file() and path.stat().st_size == descriptor.size:
            return 0
        with self._room(descriptor):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name[:16]}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
            try:
                with temporary.open("wb") as stream:
                    for block in verified(content.read(), descriptor, f"the blob written to {path}"):
                        stream.write(block)
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return descriptor.size

    def put_manifest(self, manifest: RawManifest, tag: str | None) -> int:
        """Write a manifest, and with a tag let the index name it: the last write, after which the image is there."""
        written = 0
        path = self._blob(manifest.digest)
        with self._room(manifest):
            if not path.is_file() or path.read_bytes() != manifest.data:
                write_atomically(path, manifest.data)
                written = len(manifest.data)
            if tag is not None:
                self._name(manifest, tag)
        return written

    def _name(self, manifest: RawManifest, tag: str) -> None:
        # The lock is on the folder itself, so that it leaves no file behind.
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            entry = {
                "mediaType": manifest.media_type,
                "digest": manifest.digest,
                "size": len(manifest.data),
                "annotations": {_TAG: tag},
            }
            others = [e for e in self._entries() if (e.get("annotations") or {}).get(_TAG) != tag]
            entries = sorted(
                [*others, entry], key=lambda e: (str(e.get("annotations")), str(e.get("digest")))
            )
            write_atomically(self.path / "oci-layout", to_json(_VERSION))
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
            write_atomically(self.path / "index.json", to_json(index))
        finally:
            os.close(folder)

    def _entries(self) -> list[dict[str, Any]]:
        path = self.path / "index.json"
        if not path.is_file():
            return []
        entries = json_object(_read_small(path), str(path)).get("manifests")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise IntegrityError(f"{path} can't be read", wanted="a list of manifests")
        return entries

    def _manifest(self, digest: str, media_type: str) -> RawManifest:
        path = self._blob(digest)
        if not path.is_file():
            raise IntegrityError(f"{self.path} lacks a manifest that its index names", found=digest)
        manifest = RawManifest(media_type, _read_small(path))
        if manifest.digest != digest:
            raise IntegrityError(f"{path} isn't what its name says", found=manifest.digest, wanted=digest)
        return manifest

    def _blob(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise IntegrityError(f"{self.path} names a blob oddly", found=repr(digest), wanted="sha256:<hex>")
        return self.path / "blobs" / algorithm / value

    @contextlib.contextmanager
    def _room(self, what: Descriptor | RawManifest) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise UnavailableError(
                f"{self.path} can't take {what.digest}",
                found=e.strerror,
                remedy="Free space there or write elsewhere, then run the step again: what arrived stays",
            ) from e


@dataclass(frozen=True)
class _FileContent:
    path: Path
    descriptor: Descriptor

    def read(self, offset: int = 0) -> Iterator[bytes]:
        if offset:
            return self._stream(offset)
        return verified(self._stream(0), self.descriptor, str(self.path))

    def _stream(self, offset: int) -> Iterator[bytes]:
        try:
            with self.path.open("rb", buffering=0) as stream:
                stream.seek(offset)
                while block := stream.read(BLOCK):
                    yield block
        except FileNotFoundError as e:
            raise MissingBlobError(
                f"{self.path} is missing", remedy="Copy the layout again, as a whole"
            ) from e


def _read_small(path: Path) -> bytes:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise IntegrityError(f"{path} is too large", wanted=f"at most {MAX_JSON_BYTES} bytes")
    return path.read_bytes()
