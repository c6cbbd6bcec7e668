"""The build context as a stream: a Dockerfile and one tar for each layer. Holds no file in memory or on disk."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_model_deploy.engine.packaging.images.layers import MeasuredLayer

DOCKERFILE = "Dockerfile"


def archive_names(layers: Sequence[MeasuredLayer]) -> list[str]:
    """What the layers' tars are called in the context: in order, and by what is in them."""
    return [
        f"{number:02d}-{measured.layer.name.replace(' ', '-')}.tar"
        for number, measured in enumerate(layers, start=1)
    ]


def stream_context(dockerfile: str, layers: Sequence[MeasuredLayer]) -> Iterator[bytes]:
    """Yield the context as one tar.

    Raises:
        IntegrityError: a file has changed since its layer was measured.
    """
    content = dockerfile.encode()
    yield _header(DOCKERFILE, len(content)) + content + _padding(len(content))
    for name, measured in zip(archive_names(layers), layers, strict=True):
        yield _header(name, measured.stream.size)
        yield from measured.stream.read()
        if padding := _padding(measured.stream.size):
            yield padding
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
