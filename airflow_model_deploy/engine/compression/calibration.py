"""Feeds calibration data to the quantizer, checked and batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import read_signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np


def check_calibration(source: Path, calibration: Mapping[str, np.ndarray], batch_size: int) -> None:
    """InputError unless the arrays fit the model: names, types, shapes, finite values."""
    import numpy as np

    if batch_size < 1:
        raise InputError("batch_size", found=batch_size, wanted="at least 1")
    specs = {spec.name: spec for spec in read_signature(source).inputs}
    if set(specs) != set(calibration):
        raise InputError(
            "calibration data", found=f"inputs {sorted(calibration)}", wanted=f"inputs {sorted(specs)}",
            remedy="Name the arrays as the model's inputs.",
        )  # fmt: skip
    for name, array in calibration.items():
        spec, thing = specs[name], f"calibration data of input {name}"
        if array.dtype.name != spec.dtype:
            raise InputError(thing, found=array.dtype.name, wanted=spec.dtype, remedy="Convert the array.")
        fits = array.ndim == len(spec.shape) and all(
            isinstance(w, str) or w == f for w, f in zip(spec.shape[1:], array.shape[1:], strict=True)
        )
        if not fits or array.shape[0] == 0:
            raise InputError(
                thing, found=f"shape {array.shape}", wanted=f"shape {spec.shape}, at least one sample"
            )
        if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
            raise InputError(
                thing,
                found="NaN or infinity",
                wanted="finite values",
                remedy="Clean the data: ranges come from it.",
            )
        if isinstance(spec.shape[0], int) and spec.shape[0] != batch_size:
            raise InputError(
                "batch_size", found=batch_size, wanted=f"{spec.shape[0]}, the graph's fixed batch"
            )
    counts = {name: array.shape[0] for name, array in calibration.items()}
    if len(set(counts.values())) != 1:
        raise InputError("samples of the calibration data", found=counts, wanted="as many in each input")


def calibration_batches(
    calibration: Mapping[str, np.ndarray], batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of equal shape; the last one is filled up with repeated samples."""
    import numpy as np

    samples = next(iter(calibration.values())).shape[0]
    for begin in range(0, samples, batch_size):
        part = {name: array[begin : begin + batch_size] for name, array in calibration.items()}
        yield {name: np.resize(array, (batch_size, *array.shape[1:])) for name, array in part.items()}


def calibration_reader(calibration: Mapping[str, np.ndarray], batch_size: int) -> Any:
    """Batches of equal shape, one at a time. Repeated samples leave the extremes as they are."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = calibration_batches(calibration, batch_size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    return Reader()
