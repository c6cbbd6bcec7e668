"""Counts what inputs hold, for drift: values, NaN, values out of the declared range; keeps no value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .metrics import InputCounters
    from .values import Array


class Observer:
    """Counts over all inputs of one model; a batch costs what a request does.

    Args:
        counters: by input name.
        ranges: the values that an input normally has, (lowest, highest), where they are known.
    """

    def __init__(
        self, counters: Mapping[str, InputCounters], ranges: Mapping[str, tuple[float, float]]
    ) -> None:
        self._counters, self._ranges = counters, ranges

    def observe(self, inputs: Mapping[str, Array]) -> None:
        """Count the values of one request, or of one batch."""
        for name, array in inputs.items():
            counters = self._counters[name]
            counters.values.inc(array.size)
            if array.dtype.kind == "f":
                bad = array.size - int(np.count_nonzero(np.isfinite(array)))
                if bad:
                    counters.nan.inc(bad)
            if name in self._ranges:
                outside = _outside(array, *self._ranges[name])
                if outside:
                    counters.out_of_range.inc(outside)

    def observe_refused(self, name: str) -> None:
        """Count an input that was refused since JSON can't carry what it holds."""
        self._counters[name].nan.inc()


def _outside(array: np.ndarray[Any, Any], low: float, high: float) -> int:
    # NaN is on neither side: it is counted as what it is.
    return int(np.count_nonzero((array < low) | (array > high)))
