"""Measures alternatives side by side, so that what disturbs one disturbs all of them alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def interleaved_seconds(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    sample_seconds: float = 0.002,
    max_seconds: float = 20.0,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """CPU seconds of one call of each run, sampled in turns; the order turns round every time.

    Short calls are repeated within a sample until it lasts about `sample_seconds`. After `max_seconds`
    of wall time no further round starts (at least three are done). Compare minima: the least disturbed
    sample is the nearest to the truth.
    """
    repeats: dict[str, int] = {}
    for name, run in runs.items():
        run()  # warm: memory arenas and lazily prepared kernels
        begin = clock()
        run()
        repeats[name] = max(1, int(sample_seconds / max(clock() - begin, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    deadline = time.monotonic() + max_seconds
    for turn in range(rounds):
        if turn >= 3 and time.monotonic() > deadline:
            break
        for name in names if turn % 2 == 0 else reversed(names):
            run, count = runs[name], repeats[name]
            begin = clock()
            for _ in range(count):
                run()
            samples[name].append((clock() - begin) / count)
    return samples
