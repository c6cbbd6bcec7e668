"""What a packaged model has to keep before it is blessed; knows neither bundle nor container, starts nothing."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import GateError
from airflow_model_deploy.engine.packaging.release import Blessing

if TYPE_CHECKING:
    from airflow_model_deploy.engine.probing import Client, Comparison, GoldenSet

REMEDY = "Nothing was deployed. Look at what changed between the build and this package"
_TIMINGS = 20  # below this, one slow request decides the share


def measure_latencies(client: Client, golden: GoldenSet) -> list[float]:
    """Milliseconds of single requests, each golden one as often as it takes to have enough of them."""
    latencies: list[float] = []
    while len(latencies) < _TIMINGS:
        for request in golden.requests:
            start = time.perf_counter()
            client.infer(request.inputs)
            latencies.append((time.perf_counter() - start) * 1000)
    return latencies


def require_match(comparison: Comparison, what: str, words: str) -> None:
    """Raise GateError with the differences and the server's last words unless every golden request matched."""
    if not comparison.passed:
        differences = "\n".join(comparison.mismatches)
        raise GateError(
            f"{what} gives wrong answers",
            found=f"{comparison.matched} of {comparison.total} golden requests match:\n{differences}",
            wanted="all of them",
            remedy=f"{REMEDY}; the server's last words: {words}",
        )


def require_memory(peak: int, limit: int | None, what: str) -> None:
    """Raise GateError where the peak is above the limit; None is no limit."""
    if limit is not None and peak > limit:
        raise GateError(
            f"{what} needs too much memory",
            found=f"{peak} bytes at its peak",
            wanted=f"{limit} or less",
            remedy="Raise the limit or compress the model further",
        )


def require_latency(latencies: list[float], bound_ms: float | None, share: float, what: str) -> None:
    """Raise GateError where fewer than `share` of the requests stayed within the bound; None is no bound."""
    if bound_ms is None:
        return
    within = sum(latency <= bound_ms for latency in latencies) / len(latencies)
    if within < share:
        raise GateError(
            f"{what} is too slow",
            found=f"{within:.1%} of {len(latencies)} requests within {bound_ms:g} ms,"
            f" median {statistics.median(latencies):.3g} ms",
            wanted=f"{share:.1%}",
            remedy="Raise the objective, compress the model further, or give it more threads",
        )


def blessed(comparison: Comparison, digest: str, peak: int, latencies: list[float]) -> Blessing:
    """Return the blessing of what kept all of these.

    Args:
        comparison: of the golden requests, all matched.
        digest: of the very bundle or image that answered.
        peak: bytes of the server's memory.
        latencies: milliseconds of single requests.
    """
    original = comparison.parts[0]
    return Blessing(
        passed=True,
        golden_matched=comparison.matched,
        golden_total=comparison.total,
        max_abs_error=original.max_abs_error,
        bundle_digest=digest,
        tolerance=original.tolerance,
        peak_memory_bytes=peak,
        latency_ms=statistics.median(latencies),
    )
