"""Prometheus text as numbers, and the difference of two scrapes of one server; knows no metric's meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Labels = frozenset[tuple[str, str]]
Key = tuple[str, Labels]

START_TIME = "process_start_time_seconds"


@dataclass(frozen=True)
class Scrape:
    """One reading of a server's metrics.

    Args:
        cumulative: what only grows while the process lives: counters; a histogram's buckets, count, sum.
        gauges: everything else.
    """

    cumulative: Mapping[Key, float] = field(default_factory=dict)
    gauges: Mapping[Key, float] = field(default_factory=dict)

    def gauge(self, name: str) -> float | None:
        """The sum of a gauge over its label sets, or None where it isn't there."""
        values = [v for (n, _), v in self.gauges.items() if n == name]
        return sum(values) if values else None


@dataclass(frozen=True)
class Delta:
    """What happened between two scrapes.

    Args:
        increase: growth of every cumulative series; after a reset, growth since the reset.
        reset: the server's process isn't the one of the first scrape.
    """

    increase: Mapping[Key, float]
    reset: bool

    def select(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """(labels, increase) of every series of that sample name."""
        for (sample, labels), value in self.increase.items():
            if sample == name:
                yield dict(labels), value

    def total(self, name: str) -> float:
        """The increase of a sample summed over its label sets; 0 where it isn't there."""
        return sum(value for _, value in self.select(name))


def parse(text: str) -> Scrape:
    """Read the text format, version 0.0.4.

    Raises:
        InputError: the text isn't in that format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    cumulative: dict[Key, float] = {}
    gauges: dict[Key, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            grows = family.type in {"counter", "histogram", "summary"}
            for sample in family.samples:
                # A quantile of a summary and a series' birth time are no counts, whatever family they are in.
                counts = grows and "quantile" not in sample.labels and not sample.name.endswith("_created")
                (cumulative if counts else gauges)[sample.name, frozenset(sample.labels.items())] = (
                    sample.value
                )
    except (ValueError, IndexError, KeyError, TypeError) as e:
        raise InputError("metrics that can't be read", found=str(e), wanted="Prometheus text format") from e
    return Scrape(cumulative, gauges)


def delta(before: Scrape, after: Scrape) -> Delta:
    """The increase from one scrape to a later one.

    A process that was replaced starts at 0: where one series fell, is gone, or was born anew, all of them
    belong to the new process, so all are counted from 0. What the old one did after the first scrape is lost.
    """
    reset = _was_reset(before, after)
    return Delta(
        {
            key: value if reset else value - before.cumulative.get(key, 0.0)
            for key, value in after.cumulative.items()
        },
        reset,
    )


def share_over(
    delta: Delta, name: str, bound: float, select: Mapping[str, str] | None = None
) -> float | None:
    """The exact share of a histogram's observations above `bound`; None without such a bucket, or empty.

    Never interpolated: a bound between two buckets has no exact answer.

    Args:
        delta: what happened.
        name: the histogram's name, without suffix.
        bound: in the histogram's unit; has to be a bucket's upper edge.
        select: labels that a series must have.
    """
    wanted = set((select or {}).items())
    within, total, found = 0.0, 0.0, False
    for labels, value in delta.select(f"{name}_bucket"):
        if not wanted <= set(labels.items()):
            continue
        edge = float(labels["le"])
        if math.isinf(edge):
            total += value
        elif math.isclose(edge, bound, rel_tol=1e-9):
            within, found = within + value, True
    return 1.0 - within / total if found and total > 0 else None


def _was_reset(before: Scrape, after: Scrape) -> bool:
    for key, value in before.cumulative.items():
        if after.cumulative.get(key, -1.0) < value:
            return True
    for key, value in before.gauges.items():
        born = key[0] == START_TIME or key[0].endswith("_created")
        if born and after.gauges.get(key, value) > value:
            return True
    return False
