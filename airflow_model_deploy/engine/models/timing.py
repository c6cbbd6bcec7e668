"""Measures alternatives side by side, so that what disturbs one disturbs all of them alike."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Let this thread take denormal numbers for zero, as a server does for its whole process.

    Without it, masked attention is timed with a burden that it doesn't have in service. torch does it; where torch
    is not installed, or the CPU can't, nothing changes.
    """
    try:
        import torch
    except ImportError:
        yield
        return
    before = _takes_denormals_for_zero()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _takes_denormals_for_zero() -> bool:
    smallest = sys.float_info.min
    return smallest / 2 == 0.0


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
