"""The servable: the folder that a server loads, listed file by file. Knows its format, runs nothing in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec, list_files
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.models import copy_onnx, external_files
from airflow_model_deploy.engine.packaging.jsonobject import NAME_WANTED, check, is_name, is_number
from airflow_model_deploy.engine.packaging.listing import check_listing
from airflow_model_deploy.engine.packaging.session import checked_session
from airflow_model_deploy.engine.probing import datatype, numpy_name, write_golden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.probing import GoldenSet

INDEX = "servable.json"
SCHEMA_VERSION = 1
_MODEL_FILE = "model.onnx"
_GOLDEN_FILE = "golden.json"


@dataclass(frozen=True)
class Servable:
    """A servable that was read and verified.

    Args:
        folder: where it lies.
        digest: "sha256:..." of its index, which lists every other file's sha256.
        name: the model's name in requests.
        version: the model's version in requests.
        precision: "fp32", "int8", ...
        model: the model's file.
        golden: the golden requests' file, or None.
        signature: inputs and outputs; a dimension that varies is named "batch" (the first) or "dim<n>".
        session: the runtime's options.
        ranges: float input -> its least and largest value in the data that the model was built with.
    """

    folder: Path
    digest: str
    name: str
    version: str
    precision: str
    model: Path
    golden: Path | None
    signature: Signature
    session: dict[str, Any]
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)


def write_servable(
    folder: Path,
    *,
    model: Path,
    name: str,
    version: str,
    signature: Signature,
    session: dict[str, Any],
    precision: str,
    golden: GoldenSet | None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Write a servable into an empty or new folder; returns its digest. The same arguments give the same bytes.

    Args:
        folder: where to write.
        model: an ONNX file; weights in files beside it come along under the names that it gives them.
        name: the model's name in requests.
        version: the model's version in requests.
        signature: its inputs and outputs.
        session: the runtime's options; what is left out is set to its default.
        precision: "fp32", "int8", ...
        golden: the golden requests, or None.
        ranges: float input -> its least and largest value in real data, by which a server tells requests that
            are unlike it.

    Raises:
        InputError: the folder holds something, a name, option or range isn't usable, the model is no file, or its
            weights lie outside of its folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"the folder for a servable, {folder}", found="files in it", wanted="an empty folder"
        )
    if model.is_symlink() or not model.is_file():
        raise InputError(f"the model {model}", found="no regular file", wanted="one ONNX file")
    for thing, text in (("name", name), ("version", version), ("precision", precision)):
        check(is_name(text), f"a servable's {thing}", text, NAME_WANTED)
    index: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": version,
        "model": {"file": _MODEL_FILE, "precision": precision},
        "signature": {
            "inputs": [_to_oip(t) for t in signature.inputs],
            "outputs": [_to_oip(t) for t in signature.outputs],
        },
        "session": checked_session(session),
        "golden": None if golden is None else _GOLDEN_FILE,
    }
    if ranges:
        index["ranges"] = _checked_ranges(ranges, signature)
    for path in external_files(model):
        check(path not in (INDEX, _GOLDEN_FILE), f"external data of {model}", path, "another file name")
    copy_onnx(model, folder / _MODEL_FILE)
    if golden is not None:
        write_golden(golden, folder / _GOLDEN_FILE)
    index["files"] = [e.to_json() for e in list_files(folder)]
    # The index comes last: a folder without one is no servable.
    content = (json.dumps(index, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    (folder / INDEX).write_bytes(content)
    return _digest(content)


def read_servable(folder: Path) -> Servable:
    """Read a servable and verify every file of it.

    Raises:
        InputError: no servable lies there, or its index breaks the format.
        IntegrityError: a listed file is missing, changed, a link or outside the folder, or one isn't listed.
    """
    try:
        content = (folder / INDEX).read_bytes()
        index = json.loads(content)
        if index["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{folder}: schema_version", found=index["schema_version"], wanted=SCHEMA_VERSION
            )
        listed = {str(e["path"]): str(e["sha256"]) for e in index["files"]}
        servable = Servable(
            folder=folder,
            digest=_digest(content),
            name=str(index["name"]),
            version=str(index["version"]),
            precision=str(index["model"]["precision"]),
            model=folder / index["model"]["file"],
            golden=None if index["golden"] is None else folder / index["golden"],
            signature=Signature(
                tuple(_from_oip(t) for t in index["signature"]["inputs"]),
                tuple(_from_oip(t) for t in index["signature"]["outputs"]),
            ),
            session=checked_session(index["session"]),
            ranges={name: (float(low), float(high)) for name, (low, high) in index.get("ranges", {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(f"no servable in {folder}", found=f"{type(e).__name__}: {e}") from e
    check_listing(folder, listed, index=INDEX, thing="servable")
    for used in (index["model"]["file"], index["golden"]):
        if used is not None and used not in listed:
            raise IntegrityError(f"servable {folder}: {used} isn't among its files", wanted=sorted(listed))
    return servable


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _checked_ranges(
    ranges: Mapping[str, tuple[float, float]], signature: Signature
) -> dict[str, list[float]]:
    floats = {t.name for t in signature.inputs if t.dtype.startswith("float")}
    for name, (low, high) in ranges.items():
        check(name in floats, f"range of {name}", name, f"a float input: {sorted(floats)}")
        check(
            is_number(low) and is_number(high) and low <= high,
            f"range of {name}",
            (low, high),
            "two finite numbers, the smaller first",
        )
    return {name: [float(low), float(high)] for name, (low, high) in ranges.items()}


def _to_oip(spec: TensorSpec) -> dict[str, Any]:
    shape = [n if isinstance(n, int) and n >= 0 else -1 for n in spec.shape]
    kind = datatype(spec.dtype)
    check(
        kind != "BYTES", f"tensor {spec.name}", spec.dtype, "numbers or booleans: the server knows no others"
    )
    check(0 not in shape, f"tensor {spec.name}", spec.shape, "no dimension of size 0")
    return {"name": spec.name, "datatype": kind, "shape": shape}


def _from_oip(tensor: dict[str, Any]) -> TensorSpec:
    shape = tuple(
        n if n >= 0 else ("batch" if i == 0 else f"dim{i}") for i, n in enumerate(map(int, tensor["shape"]))
    )
    return TensorSpec(str(tensor["name"]), shape, numpy_name(str(tensor["datatype"])))
