from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, fisher_exact

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring import CanaryVerdict, Counts, Track, judge_canary
from airflow_model_deploy.engine.packaging import Objectives

GOALS = Objectives(latency_ms=50.0, latency_share=0.95, max_error_share=0.01, min_requests=20)
CANARY = Track(requests=1000, errors=0, slow=5, restarts=0, ready=1, wanted=1)
STABLE = Track(requests=9000, errors=9, slow=50, restarts=0, ready=3, wanted=3)
UNKNOWN = Track(None, None, None, restarts=0, ready=1, wanted=1)
_counted = st.integers(0, 400).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n)).flatmap(
        lambda t: st.tuples(st.just(t[0]), st.just(t[1]), st.integers(0, t[0] - t[1]))
    )
)


def _judge(canary: Track, stable: Track | None = STABLE, **options: object) -> CanaryVerdict:
    return judge_canary(canary, stable, GOALS, **({"alpha": 0.01} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, "pass", "0 of 1000 (0.00%) requests answered with an error, the stable release's 9 of 9000"),
        ({"errors": 40}, "fail", "40 of 1000 (4.00%) requests answered with an error, 1.00% allowed (p ="),
        # Within the objective, and clearly worse than what served before.
        (
            {"errors": 9},
            "fail",
            "9 of 1000 (0.90%) requests answered with an error, the stable release's 9 of 9000",
        ),
        ({"errors": 2}, "pass", "2 of 1000"),
        ({"errors": 13}, "fail", "the stable release's"),
        ({"slow": 90}, "fail", "90 of 1000 (9.00%) successful requests over 50 ms, 5.00% allowed"),
        ({"slow": 40}, "fail", "40 of 1000 (4.00%) successful requests over 50 ms, the stable release's"),
        ({"slow": 25}, "pass", "25 of 1000"),  # slower than the stable by less than the margin
        ({"restarts": 1}, "fail", "1 restarts"),
        ({"ready": 0}, "fail", "0 of 1 of the canary's pods are ready"),
        ({"ready": 1, "wanted": 2}, "inconclusive", "1 of 2"),
        ({"requests": 19, "slow": 0}, "inconclusive", "19 requests counted of the canary, 20 wanted"),
        ({"timed": 10, "slow": 0}, "inconclusive", "10 successful requests' latencies counted"),
        ({"requests": None, "errors": None}, "inconclusive", "the canary's requests are not known"),
        ({"slow": None}, "inconclusive", "latencies are not known"),
        ({"unknown": ("a-1", "a-2")}, "inconclusive", "the counts of a-1, a-2 could not be read"),
        ({"slow": 10, "slow_most": 80}, "inconclusive", "10 to 80 of 1000"),
        ({"slow": 10, "slow_most": 50}, "pass", "10 to 50 of 1000"),
        ({"slow": 90, "slow_most": 900}, "fail", "90 to 900 of 1000"),
    ],
)
def test_each_row_of_the_table(change: dict[str, object], status: str, words: str) -> None:
    verdict = _judge(replace(CANARY, **change))  # type: ignore[arg-type]
    assert verdict.status == status, verdict.reasons
    assert words in verdict.reasons[0]


def test_a_share_over_the_objective_by_chance_is_neither_good_nor_bad() -> None:
    verdict = _judge(replace(CANARY, errors=13), None)
    assert verdict.status == "inconclusive"
    assert "chance may give as many" in verdict.reasons[0]


def test_a_bad_stable_is_no_reason_against_a_good_canary() -> None:
    bad = replace(STABLE, errors=4000, slow=4000, restarts=7, ready=0)
    assert _judge(CANARY, bad).status == "pass"
    assert _judge(CANARY, replace(UNKNOWN, ready=0)).status == "pass"


def test_two_bad_ones_fail() -> None:
    bad = replace(STABLE, errors=900)
    verdict = _judge(replace(CANARY, errors=100), bad)
    assert verdict.status == "fail"
    assert verdict.figures["errors"]["p_stable"] > 0.1


def test_a_significant_difference_that_nobody_notices_is_let_be() -> None:
    canary = replace(CANARY, requests=4_000_000, errors=1200, slow=0, slow_most=0)
    verdict = _judge(canary, replace(STABLE, requests=4_000_000, errors=400))
    assert verdict.figures["errors"]["p_stable"] < 1e-9
    assert verdict.status == "pass"


def test_where_a_share_is_bracketed_the_doubt_is_the_canarys_before_it_is_called_worse() -> None:
    canary = replace(CANARY, slow=40, slow_most=40)
    assert _judge(canary, replace(STABLE, slow=50, slow_most=400)).status == "pass"
    assert _judge(canary, replace(STABLE, slow=50, slow_most=50)).status == "fail"


def test_before_the_end_nothing_passes_and_what_is_bad_fails() -> None:
    early = _judge(CANARY, final=False)
    assert early.status == "inconclusive"
    assert "isn't at its end" in early.reasons[0]
    assert _judge(replace(CANARY, errors=40), final=False).status == "fail"
    assert _judge(replace(CANARY, ready=1, wanted=2), final=False).status == "inconclusive"
    assert _judge(replace(CANARY, ready=0, wanted=2), final=False).status == "fail"


def test_a_clear_excess_needs_no_minimum() -> None:
    dead = Track(requests=5, errors=5, slow=0, restarts=0, ready=1, wanted=1)
    assert _judge(dead, looks=12).status == "fail"


def test_all_reasons_are_told_the_deciding_ones_first() -> None:
    verdict = _judge(replace(CANARY, requests=19, errors=15, slow=None, restarts=2, unknown=("a",)))
    assert verdict.status == "fail"
    found = [
        next(i for i, r in enumerate(verdict.reasons) if word in r)
        for word in ("restarts", "15 of 19", "19 req")
    ]
    assert found == sorted(found)
    assert any("a could not be read" in reason for reason in verdict.reasons)


def test_the_figures_are_those_of_the_tests() -> None:
    verdict = _judge(replace(CANARY, errors=6), looks=5)
    errors = verdict.figures["errors"]
    assert verdict.figures["level"] == pytest.approx(0.01 / 5 / 4)
    assert errors["p_bound"] == pytest.approx(binom.sf(5, 1000, 0.01))
    assert errors["p_stable"] == pytest.approx(fisher_exact([[6, 994], [9, 8991]], "greater").pvalue)
    assert errors["canary"]["share"] == 0.006
    low, high = errors["canary"]["interval"]
    assert low < 0.006 < high
    assert errors["noticeable"] > 0.01


@given(_counted, _counted, st.booleans(), st.sampled_from([1, 12]))
def test_a_verdict_survives_json(
    mine: tuple[int, int, int], theirs: tuple[int, int, int], first: bool, looks: int
) -> None:
    stable = None if first else Track(*theirs, 0, 1, 1, unknown=("b",))
    verdict = _judge(Track(*mine, 0, 1, 1, unknown=("a",)), stable, looks=looks)
    text = json.dumps(verdict.to_json(), allow_nan=False)
    assert CanaryVerdict.from_json(json.loads(text)) == verdict


@given(_counted, _counted, st.booleans())
def test_one_more_error_never_makes_a_failure_good(
    mine: tuple[int, int, int], theirs: tuple[int, int, int], first: bool
) -> None:
    canary, stable = Track(*mine, 0, 1, 1), None if first else Track(*theirs, 0, 1, 1)
    worse = replace(canary, errors=min(mine[1] + 1, mine[0]), timed=mine[0] - mine[1])
    rank = ("pass", "inconclusive", "fail").index
    before, after = _judge(replace(canary, timed=mine[0] - mine[1]), stable), _judge(worse, stable)
    assert rank(after.status) >= rank(before.status)


@given(st.none() | st.integers(0, 30), st.booleans(), st.booleans())
def test_no_data_never_passes(requests: int | None, slow_known: bool, readable: bool) -> None:
    errors = None if requests is None else 0
    seen = Track(requests, errors, 0 if slow_known else None, 0, 1, 1, unknown=() if readable else ("a",))
    if _judge(seen).status == "pass":
        assert requests is not None
        assert requests >= GOALS.min_requests
        assert slow_known
        assert readable


@pytest.mark.parametrize("share", [0.002, 0.008])
def test_a_good_canary_rarely_fails_in_all_looks_together(share: float) -> None:
    """300 rollouts of 12 looks at growing counts; both releases fail alike and are slow alike."""
    random, looks, rollouts, alpha = np.random.default_rng(7), 12, 300, 0.05
    failed = 0
    for _ in range(rollouts):
        mine = random.binomial(60, (share, 0.03), (looks, 2)).cumsum(axis=0)
        theirs = random.binomial(240, (share, 0.03), (looks, 2)).cumsum(axis=0)
        for look in range(looks):
            n, m = 60 * (look + 1), 240 * (look + 1)
            canary = Track(n, int(mine[look, 0]), int(mine[look, 1]), 0, 1, 1, timed=n)
            stable = Track(m, int(theirs[look, 0]), int(theirs[look, 1]), 0, 1, 1, timed=m)
            if _judge(canary, stable, alpha=alpha, looks=looks, final=False).status == "fail":
                failed += 1
                break
    assert failed <= alpha * rollouts


def _power(canary: int, stable: int, looks: int) -> float:
    """How often a canary with 2 % errors fails beside a stable with 0.1 %, exactly."""
    total = 0.0
    for theirs in range(int(binom.isf(1e-6, stable, 0.001)) + 1):
        low, high = -1, canary + 1
        while high - low > 1:
            middle = (low + high) // 2
            seen = Track(canary, middle, 0, 0, 1, 1)
            beside = Track(stable, theirs, 0, 0, 1, 1)
            failed = _judge(seen, beside, looks=looks).status == "fail"
            low, high = (low, middle) if failed else (middle, high)
        total += binom.pmf(theirs, stable, 0.001) * binom.sf(high - 1, canary, 0.02)
    return total


@pytest.mark.parametrize(
    ("canary", "stable", "looks"), [(830, 830, 1), (1120, 1120, 12), (400, 3600, 1), (500, 4500, 12)]
)
def test_as_many_requests_as_the_documentation_says_show_two_percent(
    canary: int, stable: int, looks: int
) -> None:
    assert _power(canary, stable, looks) >= 0.9
    assert _power(canary * 3 // 4, stable * 3 // 4, looks) < 0.9


@pytest.mark.parametrize(("requests", "looks"), [(2500, 1), (3300, 12)])
def test_the_bound_alone_needs_more(requests: int, looks: int) -> None:
    bad, none = Track(requests, 0, 0, 0, 1, 1), Track(0, 0, 0, 0, 1, 1)
    errors = next(
        k for k in range(requests) if _judge(replace(bad, errors=k), none, looks=looks).status == "fail"
    )
    assert binom.sf(errors - 1, requests, 0.02) >= 0.9


def test_counts_become_a_track() -> None:
    counts = Counts(requests=100, errors=2, timed=97, slow=3, slow_most=5, unknown=("a",))
    track = Track.of(counts, restarts=1, ready=2, wanted=3)
    assert track == Track(100, 2, 3, 1, 2, 3, timed=97, slow_most=5, unknown=("a",))


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": 1.0}, {"looks": 0}, {"alpha": float("nan")}])
def test_a_test_that_can_not_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="canary's test"):
        _judge(CANARY, **options)


def test_what_is_no_verdict_is_refused() -> None:
    with pytest.raises(InputError, match="verdict"):
        CanaryVerdict.from_json({"status": "healthy", "reasons": [], "figures": {}})
