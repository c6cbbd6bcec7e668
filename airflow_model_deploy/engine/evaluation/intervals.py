"""95 % intervals for a metric and for the difference of two models on the same samples; judges nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.evaluation.metrics import Metric, in_points

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from airflow_model_deploy.engine.evaluation.samplewise import Scores, Wanted

    Interval = tuple[float, float]

Z = 1.959963984540054  # the normal distribution's 97.5 % point
RESAMPLES = 1000
_BLOCK = 1 << 20


def wilson(successes: float, count: int) -> Interval:
    """The score interval of a proportion.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n); Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    p, square = successes / count, Z * Z / count
    middle, half = p + square / 2, Z * math.sqrt(p * (1 - p) / count + square / (4 * count))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def paired_difference(both: int, first: int, second: int, neither: int) -> Interval:
    """The interval of p1 - p2, two proportions on the same samples.

    Method 10 of Newcombe, Statistics in Medicine 17 (1998) 2635-2650: the Wilson intervals of both, put together
    with the correlation between them.

    Args:
        both: samples that both models get right.
        first: that the first alone gets right.
        second: that the second alone gets right.
        neither: that neither does.
    """
    count = both + first + second + neither
    p1, p2 = (both + first) / count, (both + second) / count
    low1, high1 = wilson(both + first, count)
    low2, high2 = wilson(both + second, count)
    phi = _correlation(both, first, second, neither)

    def width(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = p1 - p2
    return difference - width(p1 - low1, high2 - p2), difference + width(high1 - p1, p2 - low2)


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    product = float(both * neither - first * second)
    if margins == 0:
        return 0.0
    if product > 0:  # corrected for continuity
        product = max(0.0, product - (both + first + second + neither) / 2)
    return product / math.sqrt(margins)


def quality_interval(
    metric: Metric, outputs: Mapping[str, np.ndarray], wanted: Wanted, **options: Any
) -> Interval | None:
    """The interval of a metric; None where its function gives none (see `Metric.resamples`).

    Wilson's for a proportion, else the 2.5 % and 97.5 % points of a bootstrap over samples (Efron 1979) from a
    fixed seed.
    """
    if metric.scores is None:
        return _resampled(metric, (outputs,), wanted, lambda value: value, options)
    scores = metric.scores(outputs, wanted)
    if scores.binary:
        return wilson(float(scores.totals.sum()), len(scores.totals))
    return _bootstrap((scores,), lambda value: value)


def drop_interval(
    metric: Metric,
    outputs: Mapping[str, np.ndarray],
    baseline: Mapping[str, np.ndarray],
    wanted: Wanted,
    **options: Any,
) -> Interval | None:
    """The interval of how much worse than a baseline, both on the same samples; in points where the metric is so.

    Newcombe's for proportions, else a bootstrap that draws the same samples for both.
    """
    unit = (100 if in_points(metric.name) else 1) * (1 if metric.higher_is_better else -1)

    def drop(value: np.ndarray, other: np.ndarray) -> np.ndarray:
        difference: np.ndarray = unit * (other - value)
        return difference

    if metric.scores is None:
        return _resampled(metric, (outputs, baseline), wanted, drop, options)
    mine, theirs = metric.scores(outputs, wanted), metric.scores(baseline, wanted)
    if mine.binary and theirs.binary:
        low, high = paired_difference(*_table(theirs.totals > 0, mine.totals > 0))
        return unit * low, unit * high
    return _bootstrap((mine, theirs), drop)


def _table(one: np.ndarray, two: np.ndarray) -> tuple[int, int, int, int]:
    return int((one & two).sum()), int((one & ~two).sum()), int((~one & two).sum()), int((~one & ~two).sum())


def _bootstrap(scores: tuple[Scores, ...], combine: Callable[..., np.ndarray]) -> Interval | None:
    import numpy as np

    random, count = np.random.default_rng(0), len(scores[0].totals)
    rows = max(1, _BLOCK // count)
    found: list[np.ndarray] = []
    for start in range(0, RESAMPLES, rows):
        drawn = random.integers(0, count, (min(rows, RESAMPLES - start), count))
        values = [_finished(one, drawn) for one in scores]
        found.append(combine(*values))
    return _points(np.concatenate(found))


def _finished(scores: Scores, drawn: np.ndarray) -> np.ndarray:
    import numpy as np

    # A resample may hold nothing that counts (every token of it ignored); it says nothing.
    with np.errstate(invalid="ignore"):
        means = scores.totals[drawn].sum(axis=1) / scores.weights[drawn].sum(axis=1)
    return np.array([scores.finish(mean) for mean in means.tolist()])


def _resampled(
    metric: Metric,
    outputs: tuple[Mapping[str, np.ndarray], ...],
    wanted: Wanted,
    combine: Callable[..., Any],
    options: dict[str, Any],
) -> Interval | None:
    import numpy as np

    if not metric.resamples:
        return None
    random = np.random.default_rng(0)
    count = len(next(iter(outputs[0].values())))
    found = []
    for _ in range(metric.resamples):
        drawn = random.integers(0, count, count)
        values = [metric(_rows(one, drawn), _rows(wanted, drawn), **options) for one in outputs]
        found.append(combine(*values))
    return _points(np.array(found))


def _rows(value: Any, drawn: np.ndarray) -> Any:
    return {name: array[drawn] for name, array in value.items()} if hasattr(value, "items") else value[drawn]


def _points(values: np.ndarray) -> Interval | None:
    import numpy as np

    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
