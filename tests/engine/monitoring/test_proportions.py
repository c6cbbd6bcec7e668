from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, fisher_exact

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring import (
    difference_probability,
    excess_probability,
    noticeable_share,
)

SHARES = st.sampled_from([0.0, 1e-6, 0.001, 0.01, 0.05, 0.3, 0.5, 0.99, 1.0])
SIZES = st.sampled_from([0, 1, 2, 7, 60, 1000, 300_000])


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    trials = draw(SIZES)
    return draw(st.integers(0, min(trials, draw(st.sampled_from([3, 100, 10**6]))))), trials


@given(counts(), SHARES)
def test_the_binomial_test_is_scipys(seen: tuple[int, int], share: float) -> None:
    assume(seen[1] > 0)
    want = binomtest(*seen, share, alternative="greater").pvalue
    assert excess_probability(*seen, share) == pytest.approx(want, rel=1e-6, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_fishers_test_is_scipys(a: int, b: int, c: int, d: int) -> None:
    want = fisher_exact([[a, b], [c, d]], alternative="greater").pvalue
    assert difference_probability(a, a + b, c, c + d) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(
    ("here", "there"),
    [((50_500, 1_000_000), (49_000, 1_000_000)), ((520, 10_000), (4_600, 90_000)), ((300, 900), (280, 900))],
)
def test_large_counts_agree_with_the_score_test(here: tuple[int, int], there: tuple[int, int]) -> None:
    """The pooled z with Yates' correction, by its formula: what Fisher's test tends to."""
    (k, n), (j, m) = here, there
    pooled = (k + j) / (n + m)
    z = (k / n - j / m - (1 / n + 1 / m) / 2) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    assert difference_probability(k, n, j, m) == pytest.approx(math.erfc(z / math.sqrt(2)) / 2, rel=0.02)


def test_few_events_are_not_left_to_the_score_test() -> None:
    """2 of 100 against 0 of 900: both of two events on this side, by hand."""
    assert difference_probability(2, 100, 0, 900) == pytest.approx(100 * 99 / (1000 * 999), rel=1e-9)
    assert difference_probability(2, 100, 0, 900) > 500 * math.erfc(4.25 / math.sqrt(2)) / 2


@given(counts(), counts(), SHARES)
def test_p_values_are_probabilities_and_fall_with_events(
    here: tuple[int, int], there: tuple[int, int], share: float
) -> None:
    more = (min(here[0] + 1, here[1]), here[1])
    less = (min(there[0] + 1, there[1]), there[1])
    p = difference_probability(*here, *there)
    q = excess_probability(*here, share)
    assert 0.0 <= p <= 1.0
    assert 0.0 <= q <= 1.0
    assert difference_probability(*more, *there) <= p * (1 + 1e-6) + 1e-12
    assert difference_probability(*here, *less) >= p * (1 - 1e-6) - 1e-12
    assert excess_probability(*more, share) <= q * (1 + 1e-6) + 1e-12


@given(counts(), counts())
def test_with_swapped_roles_both_tails_share_the_seen_table(
    here: tuple[int, int], there: tuple[int, int]
) -> None:
    """P(X >= k) + P(X <= k) = 1 + P(X = k), and the tails of the two sides are each other's."""
    both = difference_probability(*here, *there) + difference_probability(*there, *here)
    (k, n), (j, m) = here, there
    if n + m <= 2000:
        probability = math.comb(n, k) * math.comb(m, j) / math.comb(n + m, k + j)
        assert both == pytest.approx(1 + probability, rel=1e-9)
    assert both >= 1 - 1e-9


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
@pytest.mark.parametrize(("n", "m"), [(30, 30), (40, 120)])
def test_a_true_hypothesis_is_rejected_no_more_often_than_the_level(share: float, n: int, m: int) -> None:
    """The size, exactly: every table there is, weighted by its probability."""
    rejected = 0.0
    here, there = binom.pmf(range(n + 1), n, share), binom.pmf(range(m + 1), m, share)
    for k, j in itertools.product(range(n + 1), range(m + 1)):
        weight = here[k] * there[j]
        if weight > 1e-12 and difference_probability(k, n, j, m) < 0.05:
            rejected += weight
    assert rejected <= 0.05


@pytest.mark.parametrize(("trials", "level"), [(20, 0.01), (240, 0.0025), (1_000_000, 0.001)])
def test_the_noticeable_share_has_the_power_it_says(trials: int, level: float) -> None:
    share = noticeable_share(trials, 0.01, level)
    assert share is not None
    least = next(k for k in itertools.count() if binom.sf(k - 1, trials, 0.01) < level)
    assert binom.sf(least - 1, trials, share) == pytest.approx(0.9, abs=1e-3)


def test_too_few_trials_notice_nothing() -> None:
    assert noticeable_share(1, 0.05, 0.01) is None
    assert noticeable_share(0, 0.05, 0.01) is None
    assert noticeable_share(100, 1.0, 0.01) is None


def test_no_trials_are_no_evidence() -> None:
    assert excess_probability(0, 0, 0.01) == 1.0
    assert difference_probability(0, 0, 5, 5) == 1.0
    assert difference_probability(5, 5, 0, 0) == 1.0


def test_shares_of_all_and_nothing_have_their_answers() -> None:
    assert excess_probability(1, 10, 0.0) == 0.0
    assert excess_probability(0, 10, 0.0) == 1.0
    assert excess_probability(10, 10, 1.0) == 1.0


@pytest.mark.parametrize("counted", [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(counted: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="events <= trials"):
        excess_probability(*counted, 0.5)
    with pytest.raises(InputError, match="events <= trials"):
        difference_probability(1, 2, *counted)
    with pytest.raises(InputError, match="between 0 and 1"):
        excess_probability(1, 2, math.nan)
