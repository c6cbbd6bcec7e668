"""Reads servable.json and believes nothing in it that the folder doesn't prove; loads no model."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .datatypes import NUMPY_NAMES
from .onnx_rules import refuse_references
from .refusal import ServableRefusedError
from .servable_files import Entry, refuse_unless_regular, verify_files

SCHEMA_VERSION = 1
MANIFEST = "servable.json"
OPTIMIZATION_LEVELS = ("disable", "basic", "extended", "layout", "all")

__all__ = ["Servable", "ServableRefusedError", "SessionSettings", "Tensor", "load"]

_LARGEST = 16 << 20  # bytes of servable.json
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FLOATS = ("FP16", "FP32", "FP64")
_T = TypeVar("_T")


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
    """A verified servable.

    Args:
        digest: the sha256 of servable.json, which lists every other file's.
        ranges: least and largest value of float inputs, by name, in the data that the model was built with.
    """

    name: str
    version: str
    digest: str
    model: Path
    precision: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    session: SessionSettings
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)


def load(folder: Path) -> Servable:
    """Read and verify a servable folder.

    Raises:
        ServableRefusedError: naming the first file or field that is wrong.
    """
    raw, document = _read(folder / MANIFEST)
    version = _get(document, "schema_version", int)
    if version != SCHEMA_VERSION:
        raise ServableRefusedError(
            f"schema_version: found {version}, wanted {SCHEMA_VERSION}; use a server that knows it"
        )
    entries = [_entry(record, f"files[{i}]") for i, record in enumerate(_get(document, "files", list))]
    verify_files(folder, entries, manifest=MANIFEST)
    sizes = {entry.path: entry.size for entry in entries}
    model = _get(document, "model", dict)
    file = _model_file(model, document, sizes)
    signature = _get(document, "signature", dict)
    inputs = _tensors(signature, "inputs")
    servable = Servable(
        name=_label(document, "name"),
        version=_label(document, "version"),
        digest="sha256:" + hashlib.sha256(raw).hexdigest(),
        model=folder / file,
        precision=_get(model, "precision", str, "model."),
        inputs=inputs,
        outputs=_tensors(signature, "outputs"),
        session=_session(_get(document, "session", dict)),
        ranges=_ranges(_get({"ranges": {}, **document}, "ranges", dict), inputs),
    )
    refuse_references(folder, file, sizes)
    return servable


def _read(manifest: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        refuse_unless_regular(manifest, MANIFEST)
        with manifest.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise ServableRefusedError(f"{MANIFEST}: has more than {_LARGEST} bytes")
        document = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise ServableRefusedError(f"{MANIFEST}: can't be read: {error}") from error
    if not isinstance(document, dict):
        raise ServableRefusedError(f"{MANIFEST}: found {type(document).__name__}, wanted an object")
    return raw, document


def _entry(record: Any, where: str) -> Entry:
    if not isinstance(record, dict):
        raise ServableRefusedError(f"{where}: found {type(record).__name__}, wanted an object")
    path, sha256 = (_get(record, key, str, f"{where}.") for key in ("path", "sha256"))
    return Entry(path, _get(record, "size", int, f"{where}."), sha256)


def _model_file(model: dict[str, Any], document: dict[str, Any], sizes: dict[str, int]) -> str:
    golden = None if document.get("golden", "") is None else _get(document, "golden", str)
    file = _get(model, "file", str, "model.")
    for where, path in (("model.file", file), ("golden", golden)):
        if path is not None and path not in sizes:
            raise ServableRefusedError(f"{where}: {path!r} is not in files")
    # ONNX Runtime tells formats by the ending, and only ONNX has been looked into here.
    if not file.endswith(".onnx"):
        raise ServableRefusedError(f"model.file: found {file!r}, wanted a name that ends in .onnx")
    return file


def _ranges(record: dict[str, Any], inputs: tuple[Tensor, ...]) -> dict[str, tuple[float, float]]:
    floats = [t.name for t in inputs if t.datatype in _FLOATS]
    ranges = {}
    for name, value in record.items():
        where = f"ranges.{name}"
        if name not in floats:
            raise ServableRefusedError(f"{where}: is no float input, which are {floats}")
        if not isinstance(value, list) or len(value) != 2 or not all(_is_finite(v) for v in value):
            raise ServableRefusedError(f"{where}: found {value!r:.100}, wanted two finite numbers")
        if value[0] > value[1]:
            raise ServableRefusedError(f"{where}: found {value}, wanted the smaller number first")
        ranges[name] = (float(value[0]), float(value[1]))
    return ranges


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(value)
    except (TypeError, OverflowError):
        return False


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
