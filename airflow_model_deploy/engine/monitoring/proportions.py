"""Exact one-sided tests of shares, counts against a bound or against other counts; knows nothing of servers.

Exact tails at every size: a rollout tests at levels near 1e-4 with a handful of events, where the pooled z (score)
test isn't one. With 2 of 100 against 0 of 900 it says p = 1e-5; the exact value is 1e-2. A tail costs as many
terms as a few standard deviations hold, so that a million requests are no reason to approximate.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

_NEGLIGIBLE = 1e-17


def excess_probability(events: int, trials: int, share: float) -> float:
    """The p value of the one-sided binomial test: P(X >= events) for X ~ Binomial(trials, share).

    H0: an event's probability is at most `share`. H1: it is higher. Clopper and Pearson, Biometrika 26 (1934)
    404-413. No trials are no evidence: 1.

    Raises:
        InputError: counts or a share that can't be.
    """
    _check(events, trials)
    if not 0 <= share <= 1:
        raise InputError("the share of a binomial test", found=share, wanted="between 0 and 1")
    if events == 0 or share == 1:
        return 1.0
    if share == 0:
        return 0.0
    odds = share / (1 - share)

    def log_probability(k: int) -> float:
        return _log_choose(trials, k) + k * math.log(share) + (trials - k) * math.log1p(-share)

    def ratio(k: int) -> float:  # of the probability of k to that of k - 1
        return (trials - k + 1) / k * odds

    return _tail(events, (0, trials), trials * share, log_probability, ratio)


def difference_probability(events: int, trials: int, other_events: int, other_trials: int) -> float:
    """The p value of Fisher's exact test: how likely `events` or more of them all lie on this side.

    H0: an event is at most as likely here as on the other side. H1: it is likelier. P(X >= events) for
    X ~ Hypergeometric: `trials` drawn of all, with the events of both sides among them. Fisher, J. R. Stat. Soc.
    98 (1935) 39-82. It never rejects a true H0 more often than its level, at any count.

    Raises:
        InputError: counts that can't be.
    """
    _check(events, trials)
    _check(other_events, other_trials)
    total, drawn = trials + other_trials, events + other_events
    lowest, highest = max(0, drawn - other_trials), min(drawn, trials)
    if events <= lowest:
        return 1.0

    def log_probability(k: int) -> float:
        here, there = _log_choose(trials, k), _log_choose(other_trials, drawn - k)
        return here + there - _log_choose(total, drawn)

    def ratio(k: int) -> float:
        return (trials - k + 1) * (drawn - k + 1) / (k * (other_trials - drawn + k))

    return _tail(events, (lowest, highest), trials * drawn / total, log_probability, ratio)


@lru_cache(maxsize=256)  # each look of a rollout may ask again
def noticeable_share(trials: int, bound: float, level: float, power: float = 0.9) -> float | None:
    """The smallest true share that the binomial test finds to be over `bound` with probability `power`.

    None where not even events alone would be significant: there are too few trials.
    """
    least = _critical(trials, bound, level)
    if least is None:
        return None
    low, high = bound, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if excess_probability(least, trials, middle) >= power else (middle, high)
    return high


def _critical(trials: int, bound: float, level: float) -> int | None:
    """The fewest events that are significant."""
    low, high = 0, trials + 1  # low is never significant, high always
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if excess_probability(middle, trials, bound) < level else (middle, high)
    return high if high <= trials else None


def _tail(
    first: int,
    support: tuple[int, int],
    mean: float,
    log_probability: Callable[[int], float],
    ratio: Callable[[int], float],
) -> float:
    """P(X >= first), summed away from the middle, where the terms fall: from above it up, else as 1 - P(X < first)."""
    lowest, highest = support
    if first > mean:
        term, total = math.exp(log_probability(first)), 0.0
        for k in range(first + 1, highest + 2):
            total += term
            if term <= total * _NEGLIGIBLE:
                break
            term *= ratio(k)
        return min(total, 1.0)
    term, total = math.exp(log_probability(first - 1)), 0.0
    for k in range(first - 1, lowest - 1, -1):
        total += term
        if k == lowest or term <= total * _NEGLIGIBLE:
            break
        term /= ratio(k)
    return max(1.0 - total, 0.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _check(events: int, trials: int) -> None:
    if not 0 <= events <= trials:
        raise InputError("counts of a test", found=f"{events} of {trials}", wanted="0 <= events <= trials")
