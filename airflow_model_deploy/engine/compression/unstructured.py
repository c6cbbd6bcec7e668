"""Decides which single weights go, by magnitude; exact, whatever the rounding of the weights' type."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from torch import Tensor

Criterion = Literal["mean", "ratio"]
Scope = Literal["global", "tensor"]

_CHUNK = 1 << 22  # elements held as float64 at a time


def magnitude_masks(
    weights: Mapping[str, Tensor],
    *,
    criterion: Criterion,
    scope: Scope = "global",
    ratio: float | None = None,
) -> dict[str, Tensor]:
    """Boolean masks, True where a weight stays.

    mean: w_i goes where |w_i| < (1/n) * sum_j |w_j|, strictly and in exact arithmetic: a weight equal to the
    mean stays, in every type. ratio: exactly floor(ratio * n) weights of the smallest magnitude go, with
    `ratio` read as the decimal it is written as; among equal ones the first go.

    Args:
        weights: floating tensors by name, any shape and memory layout.
        criterion: the rule.
        scope: n counts all weights together ("global") or each tensor on its own ("tensor").
        ratio: 0 < ratio < 1; the mean rule does not read it.
    """
    _check_arguments(weights, criterion, scope, ratio)
    groups = [dict(weights)] if scope == "global" else [{name: w} for name, w in weights.items()]
    masks: dict[str, Tensor] = {}
    for group in groups:
        for name, weight in group.items():
            _check_finite(name, weight)
        if criterion == "mean":
            threshold = mean_threshold(group)
            masks.update({name: _at_least(weight, threshold) for name, weight in group.items()})
        else:
            count = math.floor(Fraction(str(ratio)) * sum(w.numel() for w in group.values()))
            masks.update(_without_smallest(group, count))
    return masks


def _check_arguments(weights: Mapping[str, Tensor], criterion: str, scope: str, ratio: float | None) -> None:
    if criterion not in ("mean", "ratio"):
        raise InputError("criterion", found=criterion, wanted="mean or ratio")
    if scope not in ("global", "tensor"):
        raise InputError("scope", found=scope, wanted="global or tensor")
    if criterion == "ratio" and (ratio is None or not 0 < ratio < 1):
        raise InputError("ratio", found=ratio, wanted="a number between 0 and 1")
    if not weights or not all(w.numel() for w in weights.values()):
        raise InputError("weights to prune", found="no elements", wanted="at least one weight in each tensor")


def _check_finite(name: str, weight: Tensor) -> None:
    import torch

    if not weight.is_floating_point():
        raise InputError(f"weight {name}", found=str(weight.dtype), wanted="a floating type")
    bad = weight.numel() - int(torch.isfinite(weight.detach()).sum())
    if bad:
        raise InputError(
            f"weight {name}",
            found=f"{bad} values that are NaN or infinite",
            wanted="finite weights",
            remedy="Train again or restore an earlier checkpoint; such a model cannot be pruned.",
        )


def mean_threshold(weights: Mapping[str, Tensor]) -> float:
    """The smallest double that is >= the exact mean magnitude.

    |w| < mean holds exactly when |w| < this number, for every w that is a double, as all narrower types are.
    """
    total, count = Fraction(0), 0
    for weight in weights.values():
        total += _exact_sum(weight)
        count += weight.numel()
    mean = total / count
    nearest = mean.numerator / mean.denominator  # Python rounds this division correctly
    return nearest if Fraction(nearest) >= mean else math.nextafter(nearest, math.inf)


def _exact_sum(weight: Tensor) -> Fraction:
    """Sum of magnitudes without rounding: integer mantissas, added exponent by exponent.

    A double's 53-bit mantissa is split into two halves, so that a chunk's sums stay below 2**53.
    """
    import numpy as np

    total = 0  # in units of 2**-1128, below the smallest half mantissa of a subnormal double
    for chunk in _chunks(weight):
        mantissa, exponent = np.frexp(chunk)
        whole = (mantissa * 2.0**53).astype(np.int64)
        lowest = int(exponent.min())
        bins = (exponent - lowest).astype(np.int64)
        high = np.bincount(bins, weights=(whole >> 27).astype(np.float64))
        low = np.bincount(bins, weights=(whole & (2**27 - 1)).astype(np.float64))
        for index in range(len(high)):
            total += ((int(high[index]) << 27) + int(low[index])) << (lowest + index - 53 + 1128)
    return Fraction(total, 1 << 1128)


def _chunks(weight: Tensor) -> Iterable[np.ndarray]:
    """Magnitudes as float64, some at a time, in index order."""
    import torch

    flat = weight.detach().reshape(-1)
    for begin in range(0, flat.numel(), _CHUNK):
        yield flat[begin : begin + _CHUNK].to("cpu", torch.float64).abs().numpy()


def _at_least(weight: Tensor, threshold: float) -> Tensor:
    import torch

    kept = [torch.from_numpy(chunk >= threshold) for chunk in _chunks(weight)]
    return torch.cat(kept).reshape(weight.shape).to(weight.device)


def _without_smallest(weights: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Masks that drop `count` weights of the smallest magnitude; ties go in order of name and index."""
    import numpy as np
    import torch

    wide = any(w.dtype == torch.float64 for w in weights.values())
    dtype = torch.float64 if wide else torch.float32  # both hold the narrower types exactly
    flat = np.concatenate([w.detach().to("cpu", dtype).abs().reshape(-1).numpy() for w in weights.values()])
    kept = np.ones(flat.size, dtype=bool)
    if count:
        limit = np.partition(flat, count - 1)[count - 1]
        kept = flat >= limit
        ties = np.flatnonzero(flat == limit)
        kept[ties[: count - int(np.count_nonzero(~kept))]] = False
    masks, begin = {}, 0
    for name, weight in weights.items():
        part = kept[begin : begin + weight.numel()].copy()
        masks[name] = torch.from_numpy(part).reshape(weight.shape).to(weight.device)
        begin += weight.numel()
    return masks
