"""Counts what one track's pods did since a moment, by their own /metrics; knows neither pods nor how to reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring.counts import Counts, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_model_deploy.engine.monitoring.metrics_text import Scrape


class Window:
    """One track's requests since `start`, asked for as often as wanted.

    The more often it is asked, the less is lost of a process that ends: what that did after its last scrape is
    never counted.

    Args:
        read: scrapes every pod of the track that there is; None for one that could not be read.
        latency_ms: the objective that a slow request is over.
    """

    def __init__(self, read: Callable[[], Mapping[str, Scrape | None]], *, latency_ms: float) -> None:
        self._read = read
        self._latency_s = latency_ms / 1000
        self._tally: Tally | None = None

    def start(self) -> None:
        """Begin here, or begin anew."""
        self._tally = Tally(self._latency_s)
        self._tally.add(self._read())

    def counts(self) -> Counts:
        """Read once more; what happened since the start.

        Raises:
            InputError: it was never started.
        """
        if self._tally is None:
            raise InputError("a window of a rollout", found="no start", wanted="start() before counts()")
        self._tally.add(self._read())
        return self._tally.counts()
