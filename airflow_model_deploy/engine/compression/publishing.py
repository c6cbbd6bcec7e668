"""How a rewritten ONNX file takes its place: made in a folder of its own, verified, then moved."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    create_session,
    open_onnx,
    ort_errors,
    read_signature,
    save_onnx,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGE = 100_000_000  # bytes above which a session would cost more memory than all the rest


@contextlib.contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """A fresh folder beside the target: the quantizers refuse to overwrite what an earlier try left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".quantize-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(source: Path, made: Path, target: Path) -> None:
    """Move a file, and the data beside it, into place once ONNX Runtime loads it and its signature is the source's."""
    _check_loads(made)
    before, after = read_signature(source), read_signature(made)
    if before != after:
        raise InputError(
            f"quantization of {source}", found=f"signature {after}", wanted=f"signature {before}"
        )
    beside, wanted = made.with_name(f"{made.name}.data"), target.with_name(f"{target.name}.data")
    if beside.exists():
        beside.replace(wanted)
        made.replace(target)
    else:
        made.replace(target)
        wanted.unlink(missing_ok=True)


def _check_loads(made: Path) -> None:
    """Create a session; of a large file without reading its weights, which ONNX Runtime maps where they lie."""
    import onnxruntime

    if made.stat().st_size < _LARGE and not made.with_name(f"{made.name}.data").exists():
        create_session(made)
        return
    view = made.with_name("view.onnx")
    save_onnx(open_onnx(made), view)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        onnxruntime.InferenceSession(str(view), options, providers=["CPUExecutionProvider"])
    except ort_errors() as error:
        raise InputError(
            f"model {made.name}",
            found=f"ONNX Runtime refuses it: {' '.join(str(error).split())[:400]}",
            wanted="a valid ONNX graph",
        ) from error
