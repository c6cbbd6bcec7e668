"""Measures candidates side by side: time a call, time to start, difference of answers."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.models import (
    SessionSettings,
    create_session,
    denormals_as_zero,
    interleaved_seconds,
    read_signature,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np


def batches(source: Path, batch_sizes: Sequence[int]) -> list[int]:
    """The wanted batch sizes; where the graph fixes its batch, that one alone."""
    fixed = [spec.shape[0] for spec in read_signature(source).inputs if spec.shape]
    sizes = [size for size in fixed if isinstance(size, int)]
    return sizes[:1] or list(batch_sizes)


def load_seconds(files: Mapping[str, Path], settings: Mapping[str, SessionSettings]) -> dict[str, float]:
    """Least CPU seconds from the file to a session, by candidate."""
    loads = {name: partial(create_session, files[name], settings[name]) for name in files}
    samples = interleaved_seconds(loads, rounds=7, max_seconds=20)
    return {name: min(times) for name, times in samples.items()}


def measure(
    files: Mapping[str, Path],
    settings: Mapping[str, SessionSettings],
    inputs: Mapping[str, np.ndarray],
    batch_sizes: Sequence[int],
    rounds: int,
    max_seconds: float,
) -> dict[str, dict[int, float]]:
    """Seconds a call, by candidate and batch size."""
    import numpy as np

    # Threads that work in parallel burn more CPU the faster they are: then only the wall clock tells.
    parallel = max(s.intra_op_threads for s in settings.values()) > 1
    clock = time.perf_counter if parallel else time.process_time
    sessions = {name: create_session(files[name], settings[name]) for name in files}
    found: dict[str, dict[int, float]] = {name: {} for name in files}
    for size in batch_sizes:
        batch = {name: np.resize(array, (size, *array.shape[1:])) for name, array in inputs.items()}
        run(next(iter(sessions.values())), batch)  # refuses wrong inputs with a clear error
        calls: dict[str, Callable[[], object]] = {
            name: partial(session.run, None, batch) for name, session in sessions.items()
        }
        with denormals_as_zero():
            samples = interleaved_seconds(calls, rounds=rounds, max_seconds=max_seconds, clock=clock)
        for name, times in samples.items():
            found[name][size] = min(times)
    return found


def errors(
    files: Mapping[str, Path],
    settings: Mapping[str, SessionSettings],
    inputs: Mapping[str, np.ndarray],
    reference: str,
) -> dict[str, float]:
    """Largest difference from the candidate `reference`, relative to its largest output."""
    import numpy as np

    few = {name: array[:32] for name, array in inputs.items()}
    want = run(create_session(files[reference], settings[reference]), few)
    errors = {}
    for name in files:
        got = run(create_session(files[name], settings[name]), few)
        worst = 0.0
        for output, value in want.items():
            difference = np.abs(got[output].astype(np.float64) - value.astype(np.float64))
            scale = max(float(np.abs(value).max()), 1e-6)
            worst = max(worst, float(difference.max()) / scale)
        errors[name] = worst if worst == worst else float("inf")
    return errors


def least(passes: Sequence[dict[str, dict[int, float]]]) -> dict[str, dict[int, float]]:
    """The least of the passes, by candidate and batch size."""
    first = passes[0]
    return {name: {size: min(p[name][size] for p in passes) for size in first[name]} for name in first}
