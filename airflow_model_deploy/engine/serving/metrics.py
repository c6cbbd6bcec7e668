"""The server's Prometheus metrics; one registry a server, so that tests may hold many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .servable import Servable

# Objectives are checked as a share of requests at or below a bucket's edge, which is exact.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_REASONS = (
    "bad_http",
    "connections",
    "disconnected",
    "input_not_finite",
    "invalid",
    "media_type",
    "memory",
    "method",
    "not_found",
    "output_not_finite",
    "queue_full",
    "queue_timeout",
    "slow_reader",
    "slow_request",
    "too_large",
)


@dataclass(frozen=True)
class InputCounters:
    """What is counted of one input."""

    values: Counter
    nan: Counter
    out_of_range: Counter


class Metrics:
    """Everything that GET /metrics shows of one loaded model.

    A series that is known exists from the start: a ratio over a missing series is empty, not zero. What a request
    touches is looked up once.
    """

    def __init__(self, servable: Servable, load_seconds: float) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._labels = {"model": servable.name, "version": servable.version}
        names = list(self._labels)
        Gauge(
            "model_info", "The model being served.", [*names, "digest", "precision"], registry=registry
        ).labels(**self._labels, digest=servable.digest, precision=servable.precision).set(1)
        Gauge("model_load_seconds", "Time to verify, load and warm up.", names, registry=registry).labels(
            **self._labels
        ).set(load_seconds)
        self._duration = Histogram(
            "model_request_duration_seconds",
            "Time from the head of an inference request to its answer.",
            [*names, "code"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._durations: dict[int, Histogram] = {}
        self.duration(200)
        self.queue_seconds = Histogram(
            "model_queue_seconds",
            "Time that a request waited for the model.",
            names,
            buckets=(0.0001, 0.00025, 0.0005, *_SECONDS),
            registry=registry,
        ).labels(**self._labels)
        self.batch_size = Histogram(
            "model_batch_size", "Rows that ran together.", names, buckets=_ROWS, registry=registry
        ).labels(**self._labels)
        self.in_flight = Gauge(
            "model_requests_in_flight", "Inference requests being answered.", registry=registry
        )
        self._rejected = Counter(
            "model_rejected_total", "Requests refused, by reason.", ["reason"], registry=registry
        )
        for reason in _REASONS:
            self._rejected.labels(reason)
        self.inputs = _input_counters(servable, registry)

    def duration(self, status: int) -> Histogram:
        """Return the histogram of the requests answered with this status."""
        if status not in self._durations:
            self._durations[status] = self._duration.labels(**self._labels, code=str(status))
        return self._durations[status]

    def reject(self, reason: str) -> None:
        """Count a refusal."""
        self._rejected.labels(reason).inc()


def _input_counters(servable: Servable, registry: CollectorRegistry) -> Mapping[str, InputCounters]:
    values, nan, out_of_range = (
        Counter(name, text, ["input"], registry=registry)
        for name, text in (
            ("model_input_values_total", "Values of an input."),
            (
                "model_inputs_nan_total",
                "Values of an input that were NaN or infinite; a refusal for null or an overflow counts one.",
            ),
            (
                "model_input_out_of_range_total",
                "Values of an input outside the range that the servable gives.",
            ),
        )
    )
    return {
        t.name: InputCounters(values.labels(t.name), nan.labels(t.name), out_of_range.labels(t.name))
        for t in servable.inputs
    }
