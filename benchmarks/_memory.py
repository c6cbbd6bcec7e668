"""What quantizing an ONNX model of over 1 GB takes in memory, by every path, beside ONNX Runtime's quantizers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from benchmarks._claims import Found
from benchmarks._steps import python, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CLAIMED = ("int8-weight", "int8-dynamic")
_PATHS = ("export", "int8-static", "int8-smooth", "int8-outlier")  # these run the model, or hold it
_PEERS = {
    "dynamic": "onnxruntime quantize_dynamic",
    "nbits8": "onnxruntime MatMulNBits 8 bit",
    "nbits4": "onnxruntime MatMulNBits 4 bit",
}


def measure(folder: Path, *, quick: bool) -> Found:
    """Make a model of random weights, quantize it by every path in a process each."""
    found = Found()
    source = folder / "large" / "model.onnx"
    source.parent.mkdir(parents=True)
    size = int(python("_large_onnx", "make", source, "--gigabytes", "0.2" if quick else "1.1")["model_bytes"])
    peaks = {}

    def row(name: str, run: Callable[[Path], dict[str, Any]], **told: str) -> None:
        say(f"memory: {name}")
        target = folder / "made" / "model.onnx"
        target.parent.mkdir()
        row: dict[str, Any] = {"part": "memory", "name": name, "model_bytes": size, **told}
        try:
            taken = run(target)
            peaks[name] = taken["peak_bytes_over_imports"] / size
            row |= {"peak_ratio": round(peaks[name], 3), "wall_s": taken["seconds"]}
            row |= {"peak_bytes_over_imports": taken["peak_bytes_over_imports"]}
            row["bytes"] = sum(path.stat().st_size for path in target.parent.iterdir())
        except RuntimeError as error:
            if name in _CLAIMED:
                raise
            row["failed"] = str(error)
        finally:
            shutil.rmtree(target.parent)
        found.rows.append(row)

    for wanted in (*_CLAIMED, "int4-weight"):
        row(wanted, lambda target, wanted=wanted: python("_large_onnx", "quantize", source, target, wanted))  # type: ignore[misc]
    for path in _PATHS:
        row(path, lambda target, path=path: python("_memory_paths", path, source, target))  # type: ignore[misc]
    for kind, name in _PEERS.items():
        row(
            name,
            lambda target, kind=kind: python("_ort_quantizers", kind, source, target),  # type: ignore[misc]
            could_not="stream: it holds the whole model",
        )
    found.claim("weight_only_memory", max(peaks[name] for name in _CLAIMED), most=1.5)
    return found
