"""What a container wrote: its last lines, and files taken out of it. Trusts nothing that comes from inside."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_model_deploy.engine.containers.engine import engine_errors
from airflow_model_deploy.engine.errors import InputError, ModelDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import APIClient

_CHUNK = 1 << 20
_MOST_FILES = 10_000


def tail(client: APIClient, container: str, lines: int = 20) -> str:
    """The last lines of stdout and stderr; "none" where there are none or the container is gone."""
    try:
        with engine_errors(f"the log of container {container}"):
            said = client.logs(container, stdout=True, stderr=True, tail=lines)
    except ModelDeployError:
        return "none"
    return bytes(said).decode("utf-8", errors="replace").strip() or "none"


def fetch_folder(
    client: APIClient,
    container: str,
    path: str,
    target: Path,
    *,
    max_bytes: int,
    max_files: int = _MOST_FILES,
) -> list[str]:
    """Copy a folder out of a container, which needs not run; returns the files' relative paths, sorted.

    Only regular files and folders come out: a link, a device or a name that leads elsewhere is refused, and
    so is more than was expected. Nothing is run inside; owners and modes stay behind.

    Args:
        client: of the engine.
        container: name or id.
        path: of the folder inside.
        target: an empty or new folder; on an error, what was copied so far lies there.
        max_bytes: of all files together.
        max_files: files and folders.

    Raises:
        InputError: no such folder, something that is neither file nor folder, or too much.
        UnavailableError: the engine doesn't answer.
    """
    if target.exists() and any(target.iterdir()):
        raise InputError(
            f"the folder for files of a container, {target}", found="files in it", wanted="empty"
        )
    target.mkdir(parents=True, exist_ok=True)
    thing = f"{path} of container {container}"
    with engine_errors(thing):
        chunks, stat = client.get_archive(container, path, chunk_size=_CHUNK)
        if stat.get("linkTarget"):
            raise InputError(thing, found=f"a link to {stat['linkTarget']}", wanted="a folder")
        try:
            # A pipe: nothing is held but the chunk that is being read.
            with tarfile.open(fileobj=cast("BinaryIO", _Pipe(chunks)), mode="r|") as archive:
                return sorted(_extract(archive, thing, target, max_bytes, max_files))
        except tarfile.TarError as e:
            raise InputError(thing, found=f"an archive that can't be read: {e}") from e


def _extract(
    archive: tarfile.TarFile, thing: str, target: Path, max_bytes: int, max_files: int
) -> Iterator[str]:
    size = 0
    for count, member in enumerate(archive, start=1):
        relative = _inside(member, thing)
        size += member.size
        if count > max_files or size > max_bytes:
            raise InputError(
                f"{thing} is larger than expected",
                found=f"{count} entries, {size} bytes up to {member.name}",
                wanted=f"at most {max_files} and {max_bytes}",
            )
        if relative is None:
            continue
        into = target / relative
        if member.isdir():
            into.mkdir(parents=True, exist_ok=True)
            continue
        into.parent.mkdir(parents=True, exist_ok=True)
        source = archive.extractfile(member)
        if source is None:  # a regular file always has one
            continue
        with source, into.open("xb") as sink:
            while data := source.read(_CHUNK):
                sink.write(data)
        yield relative


def _inside(member: tarfile.TarInfo, thing: str) -> str | None:
    """The path below the fetched folder, whose own name comes first; None for the folder itself."""
    parts = PurePosixPath(member.name).parts
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise InputError(
            thing, found=f"{member.name}: neither a regular file nor a folder", wanted="only those"
        )
    if member.name.startswith("/") or ".." in parts or "\0" in member.name or "\\" in member.name:
        raise InputError(thing, found=f"an entry named {member.name!r}", wanted="names below the folder")
    if len(parts) == 1 and not member.isdir():
        raise InputError(thing, found="a file", wanted="a folder")
    return "/".join(parts[1:]) or None


class _Pipe:
    """Chunks as a file that is only read forwards."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes; fewer only at the end."""
        parts, missing = [], size
        while missing > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)
