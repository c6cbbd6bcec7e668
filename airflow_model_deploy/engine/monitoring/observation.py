"""What was seen of one server in a window, in numbers; reads no clock, judges nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.errors import UnavailableError
from airflow_model_deploy.engine.monitoring.metrics_text import delta, share_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_model_deploy.engine.monitoring.metrics_text import Delta, Scrape

REQUESTS = "model_request_duration_seconds"
NAN_INPUTS = "model_inputs_nan_total"
RESIDENT = "process_resident_memory_bytes"


@dataclass(frozen=True)
class Observation:
    """What was seen in one window. None means: not known, never "none happened".

    Args:
        window_s: how long it was watched.
        probes_sent: golden requests sent.
        probes_answered: those that got an answer with outputs.
        probes_wrong: answers that don't match both recorded ones.
        last_probe_answered: whether the last one was.
        probe_latencies_ms: of the answered ones, in order.
        ready: whether server and model called themselves ready at the end.
        metrics_readable: whether both scrapes could be read and counted requests.
        requests: requests that the server counted, probes included.
        errors: those that it answered with 5xx.
        over_objective: share of the successful requests over the latency objective.
        over_objective_source: the server's histogram (exact), or the probes' own timing.
        reset_seen: the server's process was replaced in the window.
        memory_bytes: resident or peak memory at the end.
        nan_inputs: requests with NaN inputs, as the server counted.
        wrong: readable lines about the first wrong or missing answers.
    """

    window_s: float
    probes_sent: int
    probes_answered: int
    probes_wrong: int
    last_probe_answered: bool
    probe_latencies_ms: tuple[float, ...]
    ready: bool
    metrics_readable: bool
    requests: int | None = None
    errors: int | None = None
    over_objective: float | None = None
    over_objective_source: Literal["histogram", "probes"] | None = None
    reset_seen: bool = False
    memory_bytes: int | None = None
    nan_inputs: int | None = None
    wrong: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Probe:
    """One golden request and how it went."""

    latency_ms: float | None  # None: no answer
    problem: str  # empty: the answer matches


def summarise(
    probes: list[Probe],
    before: Scrape | None,
    after: Scrape | None,
    ready: bool,
    window_s: float,
    latency_ms: float,
    memory: Callable[[], int] | None,
) -> Observation:
    """Put probes and scrapes together; a scrape that failed is None."""
    latencies = tuple(p.latency_ms for p in probes if p.latency_ms is not None)
    problems = tuple(p.problem for p in probes if p.problem)
    change = delta(before, after) if before is not None and after is not None else None
    counted = change is not None and any(True for _ in change.select(f"{REQUESTS}_count"))
    over, source = _over_objective(change, latencies, latency_ms)
    return Observation(
        window_s=window_s,
        probes_sent=len(probes),
        probes_answered=len(latencies),
        probes_wrong=sum(p.latency_ms is not None and bool(p.problem) for p in probes),
        last_probe_answered=probes[-1].latency_ms is not None,
        probe_latencies_ms=latencies,
        ready=ready,
        metrics_readable=counted,
        requests=round(change.total(f"{REQUESTS}_count")) if change and counted else None,
        errors=_errors(change) if change and counted else None,
        over_objective=over,
        over_objective_source=source,
        reset_seen=change is not None and change.reset,
        memory_bytes=_memory(memory, after),
        nan_inputs=round(change.total(NAN_INPUTS)) if change else None,
        wrong=problems[:10],
    )


def _errors(change: Delta) -> int:
    return round(
        sum(v for labels, v in change.select(f"{REQUESTS}_count") if labels.get("code", "").startswith("5"))
    )


def _over_objective(
    change: Delta | None, latencies: tuple[float, ...], latency_ms: float
) -> tuple[float | None, Literal["histogram", "probes"] | None]:
    exact = None
    if change is not None:
        # Refusals are fast; only requests that succeeded say how long one takes.
        exact = share_over(change, REQUESTS, latency_ms / 1000, {"code": "200"})
    if exact is not None:
        return exact, "histogram"
    if not latencies:
        return None, None
    return sum(value > latency_ms for value in latencies) / len(latencies), "probes"


def _memory(memory: Callable[[], int] | None, after: Scrape | None) -> int | None:
    if memory is not None:
        try:
            return memory()
        except UnavailableError:
            return None
    resident = after.gauge(RESIDENT) if after is not None else None
    return None if resident is None else int(resident)
