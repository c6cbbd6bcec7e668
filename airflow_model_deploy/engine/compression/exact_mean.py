"""Computes means of magnitudes without rounding, and the limit that a strict comparison with one needs."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from torch import Tensor

FLOAT32_BITS, FLOAT64_BITS = 24, 53  # of a mantissa, the leading one included

_CHUNK = 1 << 22  # elements held as float64 at a time


def mean_threshold(values: Mapping[str, Tensor], bits: int = FLOAT32_BITS) -> float:
    """The smallest double that counts as not below the mean magnitude of all these values (`lowest_kept`)."""
    return lowest_kept(exact_mean(values), bits)


def exact_mean(values: Mapping[str, Tensor]) -> Fraction:
    """Mean magnitude of all elements, as a rational number."""
    total, count = Fraction(0), 0
    for tensor in values.values():
        total += _exact_sum(tensor)
        count += tensor.numel()
    return total / count


def lowest_kept(mean: Fraction, bits: int) -> float:
    """The smallest double that is >= mean * (1 - 2u), with u = 2**-bits the relative error of storing a number.

    Decimals such as 0.15 are no binary numbers. What is stored of a number t lies between (1 - u) t and (1 + u) t,
    and so does the mean of such numbers around the mean of what they stand for. So whatever was equal to the mean
    before it was stored is not below this limit: rounding can't flip it. 2u is the type's machine epsilon, 1.2e-7
    for float32 and 2.2e-16 for float64.
    """
    limit = mean * (1 - Fraction(2) / 2**bits)
    nearest = limit.numerator / limit.denominator  # Python rounds this division correctly
    return nearest if Fraction(nearest) >= limit else math.nextafter(nearest, math.inf)


def magnitude_chunks(tensor: Tensor) -> Iterable[np.ndarray]:
    """Magnitudes as float64, some at a time, in index order."""
    import torch

    flat = tensor.detach().reshape(-1)
    for begin in range(0, flat.numel(), _CHUNK):
        yield flat[begin : begin + _CHUNK].to("cpu", torch.float64).abs().numpy()


def _exact_sum(tensor: Tensor) -> Fraction:
    """Sum of magnitudes without rounding: integer mantissas, added exponent by exponent.

    A double's 53-bit mantissa is split into two halves, so that a chunk's sums stay below 2**53.
    """
    import numpy as np

    total = 0  # in units of 2**-1128, below the smallest half mantissa of a subnormal double
    for chunk in magnitude_chunks(tensor):
        mantissa, exponent = np.frexp(chunk)
        whole = (mantissa * 2.0**53).astype(np.int64)
        lowest = int(exponent.min())
        bins = (exponent - lowest).astype(np.int64)
        high = np.bincount(bins, weights=(whole >> 27).astype(np.float64))
        low = np.bincount(bins, weights=(whole & (2**27 - 1)).astype(np.float64))
        for index in range(len(high)):
            total += ((int(high[index]) << 27) + int(low[index])) << (lowest + index - 53 + 1128)
    return Fraction(total, 1 << 1128)
