"""Memory of the paths that hold a model as a whole: python -m benchmarks._memory_paths PATH SOURCE TARGET."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime  # noqa: F401 - imported before the memory is looked at
import torch

from airflow_model_deploy.engine.compression import export_onnx, quantize_mixed, weighted_nodes
from benchmarks._large_onnx import NARROW, WIDE, watched

if TYPE_CHECKING:
    from collections.abc import Callable


def _export(source: Path, target: Path) -> None:
    """Build a torch model of the same layers, and export it."""
    count = len(onnx.load(source, load_external_data=False).graph.node)
    layers = [
        torch.nn.Linear(*((NARROW, WIDE) if i % 2 == 0 else (WIDE, NARROW)), bias=False) for i in range(count)
    ]
    export_onnx(torch.nn.Sequential(*layers), {"input": torch.zeros(2, NARROW)}, target)


def _calibrated(wanted: str, source: Path, target: Path) -> None:
    samples = {"x": np.random.default_rng(0).standard_normal((32, NARROW), np.float32)}
    formats = {node.name: wanted for node in weighted_nodes(source)}
    quantize_mixed(source, target, formats, calibration=samples)  # type: ignore[arg-type]


def main(path: str, source: Path, target: Path) -> None:
    """Take one path, print what it took as JSON."""
    torch.set_num_threads(1)
    work: Callable[[], None] = (
        (lambda: _export(source, target)) if path == "export" else (lambda: _calibrated(path, source, target))
    )
    print(json.dumps(watched(work)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
