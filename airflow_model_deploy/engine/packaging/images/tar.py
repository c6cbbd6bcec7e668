"""A layer as a tar stream, the same bytes on any path and day; knows no compression and no digest."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging.images.blobs import BLOCK
from airflow_model_deploy.engine.packaging.images.entries import File, Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.packaging.images.entries import Layer


@dataclass(frozen=True)
class _Part:
    """A file's bytes in the stream, and what the file was when its size was written into the header."""

    path: Path
    size: int
    mtime_ns: int

    def read(self, offset: int) -> Iterator[bytes]:
        with _open_regular(self.path) as stream:
            self._check(os.fstat(stream.fileno()))
            stream.seek(offset)
            left = self.size - offset
            while left:
                block = stream.read(min(BLOCK, left))
                if not block:
                    raise _changed(self.path)
                left -= len(block)
                yield block
            self._check(os.fstat(stream.fileno()))

    def _check(self, found: os.stat_result) -> None:
        if (found.st_size, found.st_mtime_ns) != (self.size, self.mtime_ns):
            raise _changed(self.path)


class TarStream:
    """A layer's tar: regular files and folders, sorted, as root's or as said, all of 1970-01-01.

    Headers are held in memory (about 1 KiB an entry), content never is. A file that changes between two reads is
    refused by name.

    Args:
        layer: what to write.

    Raises:
        InputError: a source is missing, unreadable, a link or a special file.
    """

    def __init__(self, layer: Layer) -> None:
        self._parts: list[bytes | _Part] = []
        for entry in _with_parents(layer):
            self._add(entry)
        self._parts.append(bytes(2 * tarfile.BLOCKSIZE))
        self.size = sum(part.size if isinstance(part, _Part) else len(part) for part in self._parts)

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the stream from `offset` on, in blocks of at most 256 KiB where it is files."""
        for part in self._parts:
            size = part.size if isinstance(part, _Part) else len(part)
            if offset >= size:
                offset -= size
                continue
            if isinstance(part, _Part):
                yield from part.read(offset)
            else:
                yield part[offset:]
            offset = 0

    def _add(self, entry: File | Folder) -> None:
        content = b"" if isinstance(entry, Folder) else _content(entry.source)
        size = content.size if isinstance(content, _Part) else len(content)
        self._append(_header(entry, size))
        self._append(content)
        self._append(bytes(-size % tarfile.BLOCKSIZE))

    def _append(self, part: bytes | _Part) -> None:
        """Join bytes with the bytes before: a layer of small files is few pieces."""
        last = self._parts[-1] if self._parts else None
        if isinstance(part, bytes) and isinstance(last, bytes) and len(last) + len(part) <= BLOCK:
            self._parts[-1] = last + part
        elif part:
            self._parts.append(part)


def _with_parents(layer: Layer) -> list[File | Folder]:
    entries = {entry.path: entry for entry in layer.entries}
    for path in list(entries):
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                entries.setdefault(str(parent), Folder(str(parent)))
    return [entries[path] for path in sorted(entries)]


def _header(entry: File | Folder, size: int) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type = tarfile.DIRTYPE if isinstance(entry, Folder) else tarfile.REGTYPE
    info.size, info.mode, info.uid, info.gid, info.mtime = size, entry.mode, entry.uid, entry.gid, 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _content(source: Path | bytes) -> bytes | _Part:
    if isinstance(source, bytes):
        return source
    with _open_regular(source) as stream:
        found = os.fstat(stream.fileno())
    return _Part(source, found.st_size, found.st_mtime_ns)


def _open_regular(path: Path) -> io.FileIO:
    """Open a regular file that is no link; never wait for the other end of a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        link = e.errno == errno.ELOOP
        raise InputError(
            f"{path} can't become part of an image",
            found="a link" if link else e.strerror,
            wanted="a regular file that can be read",
            remedy="Copy the content to where the link stands" if link else None,
        ) from e
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(
            f"{path} can't become part of an image", found="a folder or special file", wanted="a regular file"
        )
    return io.FileIO(descriptor, closefd=True)


def _changed(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} changed while it was packaged",
        wanted="a file that nobody writes",
        remedy="Run the step again when its writer has ended",
    )
