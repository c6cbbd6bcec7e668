"""The affine quantizer, for any number of bits from 2 to 16. Knows arrays; knows no graphs and no kernels.

    scale = (max - min) / (2^bits - 1)        zero_point = round(-min / scale)
    q = clip(round(w / scale) + zero_point, 0, 2^bits - 1)        w' = (q - zero_point) · scale

The range is widened to hold zero, and the zero point is an integer: zero comes back as exactly zero, so that pruned
weights stay pruned. No other value in the range moves by more than half a scale. (Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 2.1.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    import numpy as np  # noqa: TC004 - no one asks these classes for their types at run time

_FEWEST, _MOST = 2, 16


@dataclass(frozen=True)
class AffineParameters:
    """What turns floats into integers and back.

    Args:
        scale: float64, one step's width; a scalar array, or one entry a channel.
        zero_point: int64, the integer that means zero; shaped like `scale`.
        bits: width of the integers.
        axis: the dimension that counts channels; None: one scale for all.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    bits: int
    axis: int | None

    def along(self, rank: int) -> tuple[Any, Any]:
        """Scale and zero point, shaped to be combined with an array of so many dimensions."""
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [-1 if i == self.axis else 1 for i in range(rank)]
        return self.scale.reshape(shape), self.zero_point.reshape(shape)


def affine_parameters(array: np.ndarray, bits: int, *, axis: int | None = None) -> AffineParameters:
    """Scale and zero point for the extremes of an array, or of each channel along `axis`.

    Where all values are zero the scale is 1.

    Raises:
        InputError: bits outside 2..16, an axis that isn't there, no values, NaN or infinity.
    """
    import numpy as np

    _check_bits(bits)
    values = _checked(array, axis)
    kept = None if axis is None else axis % values.ndim
    others = tuple(i for i in range(values.ndim) if i != kept) if kept is not None else None
    low, high = np.minimum(values.min(axis=others), 0.0), np.maximum(values.max(axis=others), 0.0)
    levels = 2**bits - 1
    width = high / levels - low / levels  # in this order: the difference itself may overflow
    scale = np.where(high - low == 0, 1.0, np.maximum(width, np.finfo(np.float64).tiny))
    zero_point = np.clip(np.rint(-low / scale), 0, levels).astype(np.int64)
    return AffineParameters(np.asarray(scale), np.asarray(zero_point), bits, kept)


def affine_quantize(array: np.ndarray, parameters: AffineParameters) -> np.ndarray:
    """Integers 0..2^bits-1, as uint8 up to 8 bits and uint16 above; ties go to the even number."""
    import numpy as np

    values = _checked(array, parameters.axis)
    scale, zero_point = parameters.along(values.ndim)
    levels = np.clip(np.rint(values / scale) + zero_point, 0, 2**parameters.bits - 1)
    found: np.ndarray = levels.astype(np.uint8 if parameters.bits <= 8 else np.uint16)
    return found


def affine_dequantize(levels: np.ndarray, parameters: AffineParameters) -> np.ndarray:
    """The float64 values that integers stand for."""
    import numpy as np

    scale, zero_point = parameters.along(np.ndim(levels))
    found: np.ndarray = (np.asarray(levels).astype(np.int64) - zero_point) * scale
    return found


def fake_quantize(array: np.ndarray, bits: int, *, axis: int | None = None) -> np.ndarray:
    """What an array becomes by quantizing and dequantizing, in its own type: to simulate, not to store."""
    import numpy as np

    parameters = affine_parameters(array, bits, axis=axis)
    back = affine_dequantize(affine_quantize(array, parameters), parameters)
    found: np.ndarray = back.astype(np.asarray(array).dtype)
    return found


def _check_bits(bits: int) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int) or not _FEWEST <= bits <= _MOST:
        raise InputError("bits", found=bits, wanted=f"a whole number, {_FEWEST} to {_MOST}")


def _checked(array: np.ndarray, axis: int | None) -> np.ndarray:
    import numpy as np

    values = np.asarray(array).astype(np.float64)
    if values.size == 0:
        raise InputError(
            "array to quantize", found=f"no values, shape {values.shape}", wanted="at least one value"
        )
    if axis is not None and not -values.ndim <= axis < values.ndim:
        raise InputError("axis", found=axis, wanted=f"a dimension of shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(
            "array to quantize",
            found=f"NaN or infinity in {int((~np.isfinite(values)).sum())} of {values.size} values",
            wanted="finite numbers",
            remedy="Look at where they come from: no range can be found with them.",
        )
    return values
