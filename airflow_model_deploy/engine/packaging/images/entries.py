"""Files, folders and layers of an image: where they lie in it and whose they are; reads no file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from airflow_model_deploy.engine.errors import InputError

_LAYER_NAME = re.compile(r"[a-z0-9][a-z0-9._ -]*")
_MAX_ID = 2**21 - 1  # seven octal digits: what a plain tar header holds
# Links into /usr or /run on every merged-/usr base: a folder entry of that name would replace the link.
_LINKS_OF_BASES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "var/run", "var/lock")


@dataclass(frozen=True)
class File:
    """One regular file of a layer; mode 0755 where `executable`, else 0644.

    Args:
        path: where it lies in the image: relative to "/", separated by "/".
        source: the file to copy (a link is refused when it is read), or the content itself.
        executable: whether it may be run.
        uid: owner.
        gid: group.
    """

    path: str
    source: Path | bytes = field(repr=False)
    executable: bool = False
    uid: int = 0
    gid: int = 0

    def __post_init__(self) -> None:
        _check_entry(self.path, self.uid, self.gid)

    @property
    def mode(self) -> int:
        """Permission bits."""
        return 0o755 if self.executable else 0o644


@dataclass(frozen=True)
class Folder:
    """One folder of a layer. The parents of every entry are there without it, as root's with mode 0755."""

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    def __post_init__(self) -> None:
        _check_entry(self.path, self.uid, self.gid)
        if not 0 <= self.mode <= 0o7777:
            raise InputError(f"the mode of folder {self.path}", found=oct(self.mode), wanted="0 to 0o7777")


@dataclass(frozen=True)
class Layer:
    """Entries that travel together; a folder and its files may come in any order, each path once.

    Args:
        name: what the image's history calls it ("server", "model.onnx").
        entries: its files and folders.
        compressed: gzip, for code; weights hardly shrink and stay as they are.
    """

    name: str
    entries: tuple[File | Folder, ...]
    compressed: bool = True

    def __post_init__(self) -> None:
        if not _LAYER_NAME.fullmatch(self.name):
            raise InputError(
                "the name of a layer", found=repr(self.name), wanted="a-z, 0-9, '.', '_', '-', ' '"
            )
        if not self.entries:
            raise InputError(f"layer {self.name!r} is empty", wanted="at least one file or folder")
        paths = [entry.path for entry in self.entries]
        twice = (
            sorted({path for path in paths if paths.count(path) > 1}) if len(set(paths)) < len(paths) else []
        )
        if twice:
            raise InputError(
                f"layer {self.name!r} lists a path twice", found=twice[0], wanted="each path once"
            )
        files = {entry.path for entry in self.entries if isinstance(entry, File)}
        for path in paths:
            for parent in PurePosixPath(path).parents:
                if str(parent) in files:
                    raise InputError(
                        f"layer {self.name!r}: {parent} is a file and a folder",
                        found=path,
                        wanted="one of them",
                    )


def require(holds: object, thing: str, found: object, wanted: str) -> None:
    """Raise InputError where something doesn't hold."""
    if not holds:
        raise InputError(thing, found=repr(found), wanted=wanted)


def _check_entry(path: str, uid: int, gid: int) -> None:
    parts = path.split("/")
    plain = path and not set(parts) & {"", ".", ".."} and not set("\\\0\n\r") & set(path)
    require(plain, "the path of an entry of an image", path, "a relative path separated by '/'")
    # A name that begins so deletes what lies below it in the base.
    whiteouts = [part for part in parts if part.startswith(".wh.")]
    require(not whiteouts, "the path of an entry of an image", path, "no name that begins with .wh.")
    linked = [link for link in _LINKS_OF_BASES if path == link or path.startswith(f"{link}/")]
    require(
        not linked, "the path of an entry of an image", path, "what the base's link points at, like usr/lib"
    )
    require(
        0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID, f"the owner of {path}", f"{uid}:{gid}", f"0 to {_MAX_ID}"
    )
