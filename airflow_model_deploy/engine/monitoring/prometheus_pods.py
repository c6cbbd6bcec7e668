"""From Prometheus' raw samples to readings of pods, and their counts; asks nobody, knows no clock."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.monitoring.counts import Counts, Tally
from airflow_model_deploy.engine.monitoring.metrics_text import START_TIME, Scrape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_model_deploy.engine.monitoring.metrics_text import Key, Labels
    from airflow_model_deploy.engine.monitoring.prometheus_api import Series

UP = "up"
LOOKBACK_S = 300.0  # Prometheus' own: an older sample is no present value


class Target:
    """What Prometheus scrapes of a pod: one address, by one job.

    Args:
        up: its series `up`, one sample a scrape.
        found: series of any target; those with all of this one's labels are its own.
        pod: its pod's name.
    """

    def __init__(self, up: Series, found: Sequence[Series], pod: str) -> None:
        self.pod, self.labels = pod, up.labels
        own = [series for series in found if series.name != UP and up.labels <= series.labels]
        values: dict[float, dict[Key, float]] = defaultdict(dict)
        for series in own:
            for at, value in series.samples:
                values[at][series.name, series.labels] = value
        self.readings = [(at, _scrape(values[at]) if alive else None) for at, alive in up.samples]
        self.rank = (bool(own), up.samples[-1][0], len(up.samples))

    def gaps(self) -> list[float]:
        """Seconds from each scrape to the next."""
        times = [at for at, _ in self.readings]
        return [later - earlier for earlier, later in pairwise(times)]

    def reading_at(self, start: float) -> tuple[bool, Scrape | None]:
        """Whether it was there at `start`, and the last scrape before."""
        before = [scrape for at, scrape in self.readings if at <= start]
        if before:
            return True, before[-1]
        # So old a process would have been seen: Prometheus, or its knowledge of the pod, is younger.
        born = [
            value
            for _, s in self.readings
            if s
            for (name, _), value in s.gauges.items()
            if name == START_TIME
        ]
        return bool(born) and born[0] < start - LOOKBACK_S, None


def one_a_pod(targets: Sequence[Target]) -> list[Target]:
    """The one to count by where several jobs scrape a pod, or several addresses of it: each would count all."""
    best: dict[str, Target] = {}
    for target in sorted(targets, key=lambda target: target.rank):
        best[target.pod] = target
    return list(best.values())


def counts(
    targets: Sequence[Target],
    present: Mapping[Labels, float],
    start: float,
    end: float,
    *,
    latency_s: float,
    interval_s: float | None,
) -> Counts:
    """Add up what the targets, one a pod, counted.

    Args:
        targets: with their samples until `end`.
        present: when the last scrape of each target was that Prometheus knows at `end`, by labels.
        start: of the window, in seconds since 1970.
        end: of the window.
        latency_s: the objective.
        interval_s: between two scrapes; None: the middle one of the gaps seen.
    """
    tally = Tally(latency_s)
    at_start = {target.pod: target.reading_at(start) for target in targets}
    tally.add({pod: scrape for pod, (there, scrape) in at_start.items() if there})
    for target in targets:
        for at, scrape in target.readings:
            if at > start:
                tally.add({target.pod: scrape})
    if interval_s is None:
        interval_s = median([gap for target in targets for gap in target.gaps()] or [LOOKBACK_S])
    last: dict[str, Scrape | None] = {}
    for target in targets:
        seen = present.get(target.labels)
        if seen is not None:
            last[target.pod] = target.readings[-1][1] if end - seen <= 2 * interval_s else None
    # Nothing is scraped any more: that nobody looks is no proof that all pods are gone.
    tally.add(last or {target.pod: None for target in targets})
    return tally.counts()


def _scrape(values: Mapping[Key, float]) -> Scrape:
    gauges = {key: value for key, value in values.items() if key[0] == START_TIME}
    return Scrape({key: value for key, value in values.items() if key not in gauges}, gauges)
