"""A server's metrics without a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from airflow_model_deploy.engine.monitoring import Scrape, parse

BUCKETS = (0.01, 0.05, 0.1, 0.5)


class Pod:
    """A server's metrics, as its own program counts them; `restart` is another process in the same pod."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "model_request_duration_seconds", "", ["code"], buckets=BUCKETS, registry=self.registry
        )
        self.seconds.labels(code="200")

    def serve(self, count: int, seconds: float = 0.02, code: str = "200") -> None:
        for _ in range(count):
            self.seconds.labels(code=code).observe(seconds)

    def text(self) -> str:
        return generate_latest(self.registry).decode()

    def scrape(self) -> Scrape:
        return parse(self.text())
