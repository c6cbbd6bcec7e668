"""A servable's files against their list: nothing missing, changed, added, linked, outside, or a program.

A file with several hard links is accepted. Stores of images and packages link equal files to save space, so it
is no sign of an attack; and its content, like every file's, must have the sha256 that servable.json gives: who
wrote that knew the content, so none can be drawn in from elsewhere. Symbolic links are refused: none of the tools
that write a servable makes one, and what they point to can be exchanged.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from .refusal import ServableRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIBRARY = re.compile(r"\.(so|dll|dylib|pyd)(\.[0-9.]+)?$", re.IGNORECASE)
_ELF = b"\x7fELF"
_MACH_O = (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")


@dataclass(frozen=True)
class Entry:
    """What servable.json says of a file."""

    path: str
    size: int
    sha256: str


def verify_files(folder: Path, entries: list[Entry], *, manifest: str) -> None:
    """Compare the folder with the list.

    Raises:
        ServableRefusedError: naming the first file that is wrong.
    """
    seen: set[str] = set()
    for entry in entries:
        refuse_escape(entry.path, "files: path")
        if entry.path in seen or entry.path == manifest:
            raise ServableRefusedError(f"files: {entry.path!r} is listed twice, or is {manifest} itself")
        seen.add(entry.path)
        try:
            _verify(folder, entry)
        except (OSError, ValueError) as error:
            raise ServableRefusedError(f"{entry.path!r}: can't be read: {error}") from error
    for path in _walk(folder):
        if path not in seen and path != manifest:
            raise ServableRefusedError(f"{path}: is in the folder and not in files")


def refuse_escape(path: str, where: str) -> None:
    """Refuse what isn't plainly a path of a file below a folder."""
    parts = path.split("/")
    odd = "\\" in path or "\0" in path or bool(PureWindowsPath(path).drive)
    if odd or {"", ".", ".."} & set(parts):
        raise ServableRefusedError(f"{where}: {path!r} may not leave the servable's folder")


def refuse_unless_regular(file: Path, name: str) -> None:
    """Refuse links, folders, pipes and devices."""
    try:
        mode = file.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ServableRefusedError(f"{name}: is missing") from None
    if stat.S_ISLNK(mode):
        raise ServableRefusedError(f"{name}: is a symbolic link")
    if not stat.S_ISREG(mode):
        raise ServableRefusedError(f"{name}: is not a regular file")


def _verify(folder: Path, entry: Entry) -> None:
    path = entry.path
    if not _SHA256.fullmatch(entry.sha256):
        raise ServableRefusedError(f"{path}: sha256 {entry.sha256!r} is not 64 hexadecimal digits")
    # Every part, since a folder that is a link leads out as well as a file does.
    here = folder
    for part in path.split("/")[:-1]:
        here = here / part
        if here.is_symlink():
            raise ServableRefusedError(f"{path}: {part!r} is a symbolic link")
    file = folder / path
    refuse_unless_regular(file, path)
    found = file.stat().st_size
    if found != entry.size:
        raise ServableRefusedError(f"{path}: has {found} bytes, files says {entry.size}")
    with file.open("rb") as stream:
        if _LIBRARY.search(path) or _is_library(stream):
            raise ServableRefusedError(
                f"{path}: is a program or library, such as one of custom operators; a servable holds no code"
            )
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != entry.sha256:
        raise ServableRefusedError(f"{path}: sha256 is {digest}, files says {entry.sha256}")


def _is_library(stream: Any) -> bool:
    """Whether the content begins as programs of Linux, macOS or Windows do, whatever the file is called."""
    head = stream.read(64)
    if head.startswith(_ELF) or head[:4] in _MACH_O:
        return True
    if head.startswith(b"\xca\xfe\xba\xbe"):  # of several architectures; weights may begin so by chance
        return bool(head[4:7] == b"\0\0\0")
    if not head.startswith(b"MZ") or len(head) < 64:
        return False
    stream.seek(int.from_bytes(head[60:64], "little"))
    return bool(stream.read(4) == b"PE\0\0")


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, onerror=_refuse_unread):
        # A link to a folder is listed among the folders and not entered.
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in [*files, *links]:
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _refuse_unread(error: OSError) -> None:
    raise ServableRefusedError(f"{error.filename}: can't be read: {error.strerror}") from error
