"""Finds out, by running it, whether a model answers each row as if it were alone; knows no request.

The signature can't tell: a mean or a softmax over the batch, or a quantizer that takes its scale from the whole
input, mixes rows whatever their shapes say. Such a model answers a request by who came with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .session import RunFailedError, UnfitInputError
from .values import ELEMENTS

if TYPE_CHECKING:
    from .servable import Servable
    from .session import Session
    from .values import Array

# Sizes to try where more than the batch is open, and the kernels' noise as a share of the largest value.
_OPEN_SIZES = (8, 1, 64)
_NOISE, _NOISE_HALF = 2e-4, 1e-2


def why_not_together(session: Session, servable: Servable) -> str | None:
    """Return why requests must not run together; None: they may."""
    tensors = (*servable.inputs, *servable.outputs)
    if not all(t.shape and t.shape[0] == -1 for t in tensors):
        return "an input or output has no varying first size"
    for size in _OPEN_SIZES:
        requests = [_random_rows(servable, size, rows, scale) for rows, scale in ((1, 1.0), (2, 100.0))]
        try:
            apart = [session.run(inputs, session.output_names) for inputs in requests]
        except (UnfitInputError, RunFailedError):
            continue
        return _compare(session, servable, requests, apart)
    return "it doesn't run on random inputs, so it can't be seen whether rows are independent"


def _compare(
    session: Session, servable: Servable, requests: list[dict[str, Array]], apart: list[dict[str, Array]]
) -> str | None:
    joined = {name: np.concatenate([r[name] for r in requests]) for name in requests[0]}
    try:
        together = session.run(joined, session.output_names)
    except (UnfitInputError, RunFailedError) as error:
        return f"rows don't run together: {error}"
    half = "16" in servable.precision or any("16" in t.datatype for t in servable.outputs)
    for name, array in together.items():
        start = 0
        for alone in (arrays[name] for arrays in apart):
            part = array[start : start + len(alone)]
            start += len(alone)
            if part.shape != alone.shape or not _agree(part, alone, _NOISE_HALF if half else _NOISE):
                return f"output {name!r} of a row depends on the other rows"
    return None


def _agree(found: Array, wanted: Array, noise: float) -> bool:
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    finite = b[np.isfinite(b)]
    scale = float(np.abs(finite).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=noise * scale, equal_nan=True))


def _random_rows(servable: Servable, size: int, rows: int, scale: float) -> dict[str, Any]:
    """Rows of another scale, so that what is taken over the whole input shows."""
    generator = np.random.default_rng(rows)
    inputs: dict[str, Any] = {}
    for tensor in servable.inputs:
        shape = [rows, *(size if d == -1 else d for d in tensor.shape[1:])]
        dtype = ELEMENTS[tensor.datatype].dtype
        if dtype.kind == "f":
            inputs[tensor.name] = (generator.uniform(-1, 1, shape) * scale).astype(dtype)
        else:
            # Most whole numbers are indices, or flags: 0 and 1 are the ones that every table has.
            inputs[tensor.name] = generator.integers(0, 2, shape).astype(dtype)
    return inputs
