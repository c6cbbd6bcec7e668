"""Layers as blobs: what they are called and how many bytes they have; knows no place to put them."""

from __future__ import annotations

import hashlib
import struct
import tempfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from airflow_model_deploy.engine.errors import IntegrityError, UnavailableError
from airflow_model_deploy.engine.packaging.images.blobs import BLOCK, OCI_LAYER, OCI_LAYER_GZIP, Descriptor
from airflow_model_deploy.engine.packaging.images.entries import Layer
from airflow_model_deploy.engine.packaging.images.tar import TarStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import IO


# Magic, deflate, no flags (so no name), time 0, no hint, unknown system. Written here because zlib's own header
# differs between systems.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_LEVEL = 6
_WRAP = 1 << 32


def diff_id(layer: Layer) -> str:
    """Return "sha256:<hex>" of the layer's tar; reads every file once, none into memory."""
    return measure(layer).diff_id


@dataclass(frozen=True)
class MeasuredLayer:
    """A layer whose files were read once: `diff_id` is its uncompressed digest, `stream` its tar."""

    layer: Layer
    stream: TarStream = field(repr=False)
    diff_id: str


def measure(layer: Layer) -> MeasuredLayer:
    """Read and hash a layer."""
    stream = TarStream(layer)
    digest = hashlib.sha256()
    for block in stream.read():
        digest.update(block)
    return MeasuredLayer(layer, stream, "sha256:" + digest.hexdigest())


class LayerBlob:
    """A layer as it travels. Use as a context manager.

    An uncompressed one is read from its files; a compressed one lies in a nameless temporary file, because its digest
    is known only at its end.

    Args:
        measured: the layer.

    Raises:
        IntegrityError: a file has changed since it was measured.
        UnavailableError: no room for the temporary file.
    """

    def __init__(self, measured: MeasuredLayer) -> None:
        self._stream: TarStream | _Compressed = measured.stream
        media_type, digest = OCI_LAYER, measured.diff_id
        if measured.layer.compressed:
            self._stream = _Compressed(measured)
            media_type, digest = OCI_LAYER_GZIP, self._stream.digest
        self.descriptor = Descriptor(media_type, digest, self._stream.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._stream, _Compressed):
            self._stream.file.close()

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the blob's bytes from `offset` on."""
        return self._stream.read(offset)


def gzip_blocks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Compress without a name or a time: equal input gives equal bytes.

    Equal for one implementation of deflate: Python built with zlib-ng gives other bytes, which unpack to the same
    layer and the same diff id.
    """
    deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum, size = 0, 0
    yield _GZIP_HEADER
    for block in blocks:
        checksum, size = zlib.crc32(block, checksum), size + len(block)
        yield deflate.compress(block)
    yield deflate.flush() + struct.pack("<II", checksum, size % _WRAP)


class _Compressed:
    def __init__(self, measured: MeasuredLayer) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by who holds the blob
        try:
            self.digest, self.size = self._write(measured)
        except OSError as e:
            self.file.close()
            raise UnavailableError(
                f"no room to compress layer {measured.layer.name!r} in {tempfile.gettempdir()}",
                found=e.strerror,
                remedy="Free space there or set TMPDIR to another folder",
            ) from e
        except BaseException:
            self.file.close()
            raise

    def _write(self, measured: MeasuredLayer) -> tuple[str, int]:
        whole, packed, size = hashlib.sha256(), hashlib.sha256(), 0

        def hashed() -> Iterator[bytes]:
            for block in measured.stream.read():
                whole.update(block)
                yield block

        for block in gzip_blocks(hashed()):
            packed.update(block)
            size += self.file.write(block)
        self.file.flush()
        if "sha256:" + whole.hexdigest() != measured.diff_id:
            raise IntegrityError(
                f"the files of layer {measured.layer.name!r} changed while they were packaged"
            )
        return "sha256:" + packed.hexdigest(), size

    def read(self, offset: int = 0) -> Iterator[bytes]:
        self.file.seek(offset)
        while block := self.file.read(BLOCK):
            yield block
