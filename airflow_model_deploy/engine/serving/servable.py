"""Reads servable.json and believes nothing in it that the folder doesn't prove; knows no ONNX."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from .datatypes import NUMPY_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_VERSION = 1
MANIFEST = "servable.json"
OPTIMIZATION_LEVELS = ("disable", "basic", "extended", "layout", "all")

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class ServableRefusedError(Exception):
    """The folder isn't a servable that may be served; the text names the file or field and why."""


@dataclass(frozen=True)
class Tensor:
    """An input or output; -1 in the shape stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the tensor's metadata as the protocol writes it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class SessionSettings:
    """How ONNX Runtime runs the model."""

    intra_op_threads: int
    inter_op_threads: int
    graph_optimization_level: str
    disabled_optimizers: tuple[str, ...]
    allow_spinning: bool
    denormals_as_zero: bool = False


@dataclass(frozen=True)
class Servable:
    """A verified servable; `digest` is the sha256 of servable.json, which lists every other file's."""

    name: str
    version: str
    digest: str
    model: Path
    precision: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    session: SessionSettings


def load(folder: Path) -> Servable:
    """Read and verify a servable folder.

    Raises:
        ServableRefusedError: naming the first file or field that is wrong.
    """
    manifest = folder / MANIFEST
    try:
        _refuse_unless_regular(manifest, MANIFEST)
        raw = manifest.read_bytes()
        document = json.loads(raw)
    except (OSError, ValueError) as error:
        raise ServableRefusedError(f"{MANIFEST}: can't be read: {error}") from error
    if not isinstance(document, dict):
        raise ServableRefusedError(f"{MANIFEST}: found {type(document).__name__}, wanted an object")
    version = _get(document, "schema_version", int)
    if version != SCHEMA_VERSION:
        raise ServableRefusedError(
            f"schema_version: found {version}, wanted {SCHEMA_VERSION}; use a server that knows it"
        )
    listed = _verify_files(folder, _get(document, "files", list))
    model = _get(document, "model", dict)
    golden = None if document.get("golden", "") is None else _get(document, "golden", str)
    for field, path in (("model.file", _get(model, "file", str, "model.")), ("golden", golden)):
        if path is not None and path not in listed:
            raise ServableRefusedError(f"{field}: {path!r} is not in files")
    signature = _get(document, "signature", dict)
    return Servable(
        name=_label(document, "name"),
        version=_label(document, "version"),
        digest="sha256:" + hashlib.sha256(raw).hexdigest(),
        model=folder / model["file"],
        precision=_get(model, "precision", str, "model."),
        inputs=_tensors(signature, "inputs"),
        outputs=_tensors(signature, "outputs"),
        session=_session(_get(document, "session", dict)),
    )


def _get(record: dict[str, Any], key: str, kind: type[_T], where: str = "") -> _T:
    if key not in record:
        raise ServableRefusedError(f"{where}{key}: missing from {MANIFEST}")
    value = record[key]
    # bool is an int to isinstance, not to the reader of a manifest.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ServableRefusedError(f"{where}{key}: found {type(value).__name__}, wanted {kind.__name__}")
    return value


def _label(record: dict[str, Any], key: str) -> str:
    value = _get(record, key, str)
    if not _LABEL.fullmatch(value):
        raise ServableRefusedError(f"{key}: found {value!r}, wanted letters, digits and ._- only")
    return value


def _tensors(signature: dict[str, Any], key: str) -> tuple[Tensor, ...]:
    records = _get(signature, key, list, "signature.")
    if not records:
        raise ServableRefusedError(f"signature.{key}: found none, wanted at least one tensor")
    tensors = tuple(_tensor(record, f"signature.{key}[{i}].") for i, record in enumerate(records))
    names = [t.name for t in tensors]
    if len(set(names)) != len(names):
        raise ServableRefusedError(f"signature.{key}: a name appears twice: {names}")
    return tensors


def _tensor(record: Any, where: str) -> Tensor:
    if not isinstance(record, dict):
        raise ServableRefusedError(f"{where[:-1]}: found {type(record).__name__}, wanted an object")
    datatype = _get(record, "datatype", str, where)
    if datatype not in NUMPY_NAMES:
        raise ServableRefusedError(
            f"{where}datatype: found {datatype!r}, wanted one of {', '.join(NUMPY_NAMES)}"
        )
    shape = _get(record, "shape", list, where)
    if not all(isinstance(d, int) and not isinstance(d, bool) and (d == -1 or d > 0) for d in shape):
        raise ServableRefusedError(f"{where}shape: found {shape}, wanted positive sizes, or -1 for any")
    return Tensor(_get(record, "name", str, where), datatype, tuple(shape))


def _session(record: dict[str, Any]) -> SessionSettings:
    level = _get(record, "graph_optimization_level", str, "session.")
    if level not in OPTIMIZATION_LEVELS:
        raise ServableRefusedError(
            f"session.graph_optimization_level: found {level!r}, wanted one of {list(OPTIMIZATION_LEVELS)}"
        )
    disabled = _get(record, "disabled_optimizers", list, "session.")
    if not all(isinstance(name, str) for name in disabled):
        raise ServableRefusedError("session.disabled_optimizers: wanted names only")
    return SessionSettings(
        intra_op_threads=_threads(record, "intra_op_threads"),
        inter_op_threads=_threads(record, "inter_op_threads"),
        graph_optimization_level=level,
        disabled_optimizers=tuple(disabled),
        allow_spinning=_get(record, "allow_spinning", bool, "session."),
        denormals_as_zero=_get({"denormals_as_zero": False, **record}, "denormals_as_zero", bool, "session."),
    )


def _threads(record: dict[str, Any], key: str) -> int:
    value = _get(record, key, int, "session.")
    if value < 1:
        raise ServableRefusedError(f"session.{key}: found {value}, wanted 1 or more")
    return value


def _verify_files(folder: Path, records: list[Any]) -> set[str]:
    listed: set[str] = set()
    for i, record in enumerate(records):
        where = f"files[{i}]."
        if not isinstance(record, dict):
            raise ServableRefusedError(f"files[{i}]: found {type(record).__name__}, wanted an object")
        path = _get(record, "path", str, where)
        _refuse_escape(path, where)
        _verify_file(folder, path, _get(record, "size", int, where), _get(record, "sha256", str, where))
        listed.add(path)
    for path in _walk(folder):
        if path not in listed and path != MANIFEST:
            raise ServableRefusedError(f"{path}: is in the folder and not in files")
    return listed


def _refuse_escape(path: str, where: str) -> None:
    parts = path.split("/")
    if PurePosixPath(path).is_absolute() or "\\" in path or "\0" in path or {"", ".", ".."} & set(parts):
        raise ServableRefusedError(f"{where}path: {path!r} may not leave the servable's folder")


def _verify_file(folder: Path, path: str, size: int, sha256: str) -> None:
    if not _SHA256.fullmatch(sha256):
        raise ServableRefusedError(f"{path}: sha256 {sha256!r} is not 64 hexadecimal digits")
    # Every part, since a folder that is a link leads out as well as a file does.
    here = folder
    for part in path.split("/")[:-1]:
        here = here / part
        if here.is_symlink():
            raise ServableRefusedError(f"{path}: {part!r} is a symbolic link")
    file = folder / path
    _refuse_unless_regular(file, path)
    found = file.stat().st_size
    if found != size:
        raise ServableRefusedError(f"{path}: has {found} bytes, files says {size}")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise ServableRefusedError(f"{path}: sha256 is {digest}, files says {sha256}")


def _refuse_unless_regular(file: Path, name: str) -> None:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        raise ServableRefusedError(f"{name}: is missing") from None
    if stat.S_ISLNK(mode):
        raise ServableRefusedError(f"{name}: is a symbolic link")
    if not stat.S_ISREG(mode):
        raise ServableRefusedError(f"{name}: is not a regular file")


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        # A link to a folder is listed among the folders and not entered.
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in [*files, *links]:
            yield (Path(parent) / name).relative_to(folder).as_posix()
