"""Blobs and manifests as every place of images has them; knows no place and no protocol."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_model_deploy.engine.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

BLOCK = 1 << 18  # what is read, hashed and sent at once
MAX_JSON_BYTES = 16 << 20  # a manifest or a config is small; more is a mistake or an attack


class MissingBlobError(IntegrityError):
    """A blob that a manifest names and its place doesn't have."""


@dataclass(frozen=True)
class Descriptor:
    """A blob by its content: `digest` is "sha256:<hex>", `size` counts bytes."""

    media_type: str
    digest: str
    size: int

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest) or self.size < 0:
            raise IntegrityError(
                "the descriptor of a blob", found=f"{self.digest!r}, {self.size} bytes", wanted="sha256:<hex>"
            )

    def to_json(self) -> dict[str, Any]:
        """As a manifest writes it."""
        return {"mediaType": self.media_type, "size": self.size, "digest": self.digest}


class Content(Protocol):
    """The bytes of a blob, readable from any offset as often as needed, never in memory as a whole."""

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from `offset` on."""
        ...


@dataclass(frozen=True)
class BytesContent:
    """A small blob in memory."""

    data: bytes

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from `offset` on."""
        yield self.data[offset:]


@dataclass(frozen=True)
class RawManifest:
    """A manifest or an index, byte for byte as its digest covers it."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """What the manifest is called."""
        return sha256_of(self.data)

    def json(self, source: str) -> dict[str, Any]:
        """The parsed content; `source` is named where it is no JSON object."""
        return json_object(self.data, source)


class Place(Protocol):
    """Where images are: a registry's repository or an OCI layout."""

    def read_manifest(self, reference: str | None) -> RawManifest:
        """Read a manifest or index by tag or digest; InputError where there is none."""
        ...

    def find_manifest(self, reference: str) -> RawManifest | None:
        """The same; None where there is none."""
        ...

    def content(self, descriptor: Descriptor) -> Content:
        """The content of a blob that is here; reading all of it verifies it."""
        ...

    def put(self, descriptor: Descriptor, content: Content, *, mount_from: str | None = None) -> int:
        """Put a blob here unless it is; return how many bytes were sent or written."""
        ...

    def put_manifest(self, manifest: RawManifest, tag: str | None) -> int:
        """Put a manifest by its digest, or let a tag name it; return the bytes sent or written."""
        ...


def sha256_of(data: bytes) -> str:
    """Return "sha256:<hex>" of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def json_object(data: bytes, source: str) -> dict[str, Any]:
    """Parse bytes that must be a JSON object."""
    try:
        value = json.loads(data)
    except ValueError as e:
        raise IntegrityError(f"{source} can't be read", found=str(e), wanted="JSON") from e
    if not isinstance(value, dict):
        raise IntegrityError(f"{source} can't be read", found=type(value).__name__, wanted="a JSON object")
    return value


def to_json(value: Any) -> bytes:
    """One spelling of a JSON value: sorted, without spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def verified(stream: Iterator[bytes], descriptor: Descriptor, source: str) -> Iterator[bytes]:
    """Pass a whole blob on, and raise IntegrityError instead of its end where it is another one."""
    digest, size = hashlib.sha256(), 0
    for block in stream:
        size += len(block)
        if size > descriptor.size:
            raise _another(source, f"more than {descriptor.size} bytes", descriptor)
        digest.update(block)
        yield block
    found = "sha256:" + digest.hexdigest()
    if size != descriptor.size or found != descriptor.digest:
        raise _another(source, f"{size} bytes, {found}", descriptor)


def read_small(content: Content, descriptor: Descriptor, source: str) -> bytes:
    """Read a config or another small JSON blob, verified."""
    if descriptor.size > MAX_JSON_BYTES:
        raise IntegrityError(source, found=f"{descriptor.size} bytes", wanted=f"at most {MAX_JSON_BYTES}")
    return b"".join(verified(content.read(), descriptor, source))


def counting(stream: Iterator[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    """Pass blocks on and tell their sizes."""
    for block in stream:
        count(len(block))
        yield block


def _another(source: str, found: str, descriptor: Descriptor) -> IntegrityError:
    return IntegrityError(
        f"{source} isn't what its digest says",
        found=found,
        wanted=f"{descriptor.size} bytes, {descriptor.digest}",
        remedy="Don't use it; look who serves it",
    )
