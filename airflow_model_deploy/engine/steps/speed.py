"""How fast an ONNX file answers in this process, on one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.evaluation import compare_speed, latency
from airflow_model_deploy.engine.models import Dataset, SessionSettings, create_session, read_signature

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

THROUGHPUT_BATCH = 64


def cpu_latency_ms(path: Path, feed: dict[str, np.ndarray], settings: SessionSettings | None = None) -> float:
    """Return the least CPU milliseconds of a single sample, or of the batch that the file is bound to."""
    session = create_session(path, settings)
    one = first_rows(feed, read_signature(path).fixed_batch or 1)
    return 1e3 * compare_speed({"it": lambda: session.run(None, one)}, rounds=15).seconds["it"]


def speedup_at_batch(
    path: Path, settings: SessionSettings, baseline: Path, feed: dict[str, np.ndarray]
) -> dict[str, float]:
    """Compare throughput with a baseline file at ONNX Runtime's defaults, in turns, on one thread.

    At batch 64, or at that which the file is bound to. Returns samples per CPU second of both, and "speedup",
    their ratio.
    """
    batch = first_rows(feed, read_signature(path).fixed_batch or THROUGHPUT_BATCH)
    ours, theirs = create_session(path, settings), create_session(baseline)
    found = compare_speed(
        {"baseline": lambda: theirs.run(None, batch), "built": lambda: ours.run(None, batch)}
    )
    rows = len(next(iter(batch.values())))
    return {
        "speedup": found.speedup["built"],
        "throughput": rows / found.seconds["built"],
        "baseline_throughput": rows / found.seconds["baseline"],
    }


def cpu_latency(
    path: Path, settings: SessionSettings | None, feed: dict[str, np.ndarray]
) -> dict[str, float]:
    """Return the median and the 95th percentile of a single request's CPU milliseconds, on the session's threads.

    A file that is bound to a batch is asked with that many samples.
    """
    session = create_session(path, settings)
    one = first_rows(feed, read_signature(path).fixed_batch or 1)
    found = latency(lambda: session.run(None, one), samples=200, max_seconds=3.0)
    return {"cpu_ms_p50": found.cpu_ms_p50, "cpu_ms_p95": found.cpu_ms_p95}


def first_rows(feed: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return `count` samples, repeated where there are fewer."""
    import numpy as np

    return {name: np.resize(array, (count, *array.shape[1:])) for name, array in feed.items()}


def enough(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return as many samples as a measurement uses."""
    return Dataset(feed, None).spread(THROUGHPUT_BATCH).inputs


def shapes(feed: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    """Describe samples by what their timing depends on: a measurement made on others is not one of these."""
    return {name: [str(array.dtype), *array.shape[1:]] for name, array in feed.items()}
