"""Quantizes an ONNX file by ONNX Runtime's own quantizers: python -m benchmarks._ort_quantizers KIND SOURCE TARGET.

Each as its documentation has it. Prints what it took, and how many bytes of memory above the imports.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks import _samples
from benchmarks._large_onnx import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

KINDS = ("dynamic", "static", "nbits8", "nbits4")
_LARGE = 1_500_000_000


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands out samples, 16 at a time."""

    def __init__(self, path: Path) -> None:
        arrays = _samples.read(path)
        count = len(next(iter(arrays.values())))
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [{name: array[i : i + 16] for name, array in arrays.items()} for i in range(0, count, 16)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch."""
        return next(self.batches, None)


def quantize(kind: str, source: Path, target: Path, samples: Path | None) -> None:
    """Run one quantizer."""
    external = source.with_name(f"{source.name}.data").exists()
    if kind == "dynamic":
        # Without `value_info`, whose shapes of weights contradict its own.
        given: Any = source
        if not external:
            given = onnx.load(source)
            given.graph.ClearField("value_info")
        quantize_dynamic(
            given, target, per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=external
        )
    elif kind == "static":
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(prepared, target, _Reader(samples or source), per_channel=True)
    else:
        config = DefaultWeightOnlyQuantConfig(
            block_size=128 if kind == "nbits8" else 32,
            is_symmetric=True,
            accuracy_level=4,
            bits=int(kind.removeprefix("nbits")),
        )
        quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target), use_external_data_format=external)


def main() -> None:
    """Quantize what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("samples", type=Path, nargs="?")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    work: Callable[[], None] = lambda: quantize(given.kind, given.source, given.target, given.samples)  # noqa: E731
    print(json.dumps(watched(work)))


if __name__ == "__main__":
    main()
