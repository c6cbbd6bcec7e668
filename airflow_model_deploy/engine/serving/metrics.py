"""The server's Prometheus metrics; one registry a server, so that tests may hold many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

if TYPE_CHECKING:
    from .servable import Servable

# Objectives are checked as a share of requests at or below a bucket's edge, which is exact.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Metrics:
    """Everything that GET /metrics shows."""

    registry: CollectorRegistry
    duration: Histogram
    in_flight: Gauge
    rejected: Counter
    inputs_nan: Counter


def create(servable: Servable, load_seconds: float) -> Metrics:
    """Create the metrics of one loaded model."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    labels = {"model": servable.name, "version": servable.version}
    info = Gauge(
        "model_info",
        "The model being served.",
        ["model", "version", "digest", "precision"],
        registry=registry,
    )
    info.labels(**labels, digest=servable.digest, precision=servable.precision).set(1)
    load = Gauge("model_load_seconds", "Time to verify, load and warm up.", list(labels), registry=registry)
    load.labels(**labels).set(load_seconds)
    duration = Histogram(
        "model_request_duration_seconds",
        "Time from the head of an inference request to its answer.",
        ["model", "version", "code"],
        buckets=_BUCKETS,
        registry=registry,
    )
    # The series exists from the start: a ratio over a missing series is empty, not zero.
    duration.labels(**labels, code="200")
    return Metrics(
        registry=registry,
        duration=duration,
        in_flight=Gauge("model_requests_in_flight", "Inference requests being answered.", registry=registry),
        rejected=Counter(
            "model_rejected_total", "Requests refused, by reason.", ["reason"], registry=registry
        ),
        inputs_nan=Counter(
            "model_inputs_nan_total", "Requests whose inputs held null, NaN or infinity.", registry=registry
        ),
    )
