"""What the servers of one track counted, added up over its pods, whatever became of a pod; judges nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.monitoring.metrics_text import Delta, Key, Scrape, delta
from airflow_model_deploy.engine.monitoring.observation import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NOTHING = Scrape()


@dataclass(frozen=True)
class Counts:
    """Requests of one track in a window. None means: not known, never "none came".

    Args:
        requests: all that were answered, whatever the answer.
        errors: those answered with 5xx.
        timed: those answered with 200. Refusals are fast; only these say how long a request takes.
        slow: those of `timed` that surely took longer than the objective.
        slow_most: those that may have. The same number where the objective is an edge of the histogram's buckets.
        unknown: pods that are there and could not be read at the end; what they had when last seen is counted.
    """

    requests: int | None = None
    errors: int | None = None
    timed: int | None = None
    slow: int | None = None
    slow_most: int | None = None
    unknown: tuple[str, ...] = ()


class Tally:
    """The counts of a track's pods, fed with one reading of all of them after another.

    A pod of the first reading counts from its first scrape that could be read. A pod that came later counts
    from 0: it was born in the window. A process that was replaced counts from 0 again, and what the old one had
    when last seen stays; so does what a pod had that is gone.

    Args:
        latency_s: the objective.
    """

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._pods: dict[str, _Pod] = {}
        self._unknown: tuple[str, ...] = ()
        self._begun = False

    def add(self, scrapes: Mapping[str, Scrape | None]) -> None:
        """Take a reading: every pod that is there; None, or a scrape without a count of requests, is unknown."""
        readable = {name: scrape for name, scrape in scrapes.items() if scrape and _counts_requests(scrape)}
        for name in scrapes:
            self._pods.setdefault(name, _Pod(last=_NOTHING if self._begun else None))
        for name, scrape in readable.items():
            self._pods[name].add(scrape)
        self._unknown = tuple(sorted(set(scrapes) - set(readable)))
        self._begun = True

    def counts(self) -> Counts:
        """What was counted until now."""
        read = [pod.counted for pod in self._pods.values() if pod.read]
        if not read:
            return Counts(unknown=self._unknown)
        all_pods: dict[Key, float] = {}
        for counted in read:
            _add(all_pods, counted)
        return _counts(Delta(all_pods, reset=False), self._latency_s, self._unknown)


@dataclass
class _Pod:
    last: Scrape | None  # what its counters had: None is not known yet
    read: bool = False
    counted: dict[Key, float] = field(default_factory=dict)

    def add(self, scrape: Scrape) -> None:
        # The first scrape of a pod that was there before the window is its zero; it still shows which series there are.
        change = delta(self.last if self.last is not None else scrape, scrape)
        _add(self.counted, change.increase)
        self.last, self.read = scrape, True


def _add(to: dict[Key, float], increase: Mapping[Key, float]) -> None:
    for key, value in increase.items():
        to[key] = to.get(key, 0.0) + value


def _counts_requests(scrape: Scrape) -> bool:
    counts = [value for (name, _), value in scrape.cumulative.items() if name == f"{REQUESTS}_count"]
    return bool(counts) and all(map(math.isfinite, counts))


def _counts(change: Delta, latency_s: float, unknown: tuple[str, ...]) -> Counts:
    answered = list(change.select(f"{REQUESTS}_count"))
    errors = sum(value for labels, value in answered if labels.get("code", "").startswith("5"))
    within = _within(change)
    timed = within.get(math.inf)
    if timed is None:
        slow = slow_most = None
    else:
        slow = timed - within[min(edge for edge in within if _at_least(edge, latency_s))]
        slow_most = timed - _last(within[edge] for edge in sorted(within) if _at_least(latency_s, edge))
    return Counts(
        requests=round(sum(value for _, value in answered)),
        errors=round(errors),
        timed=None if timed is None else round(timed),
        slow=None if slow is None else round(slow),
        slow_most=None if slow_most is None else round(slow_most),
        unknown=unknown,
    )


def _within(change: Delta) -> dict[float, float]:
    """How many successful requests took at most that many seconds, by the edges of the buckets."""
    found: dict[float, float] = {}
    for labels, value in change.select(f"{REQUESTS}_bucket"):
        if labels.get("code") == "200":
            edge = float(labels["le"])
            found[edge] = found.get(edge, 0.0) + value
    return found


def _at_least(one: float, other: float) -> bool:
    return one >= other or math.isclose(one, other, rel_tol=1e-9)


def _last(values: Iterable[float]) -> float:
    found = 0.0
    for value in values:
        found = value
    return found
