"""95 % intervals: against SciPy, published examples and simulations; and what gates make of them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation import (
    Gate,
    check_gates,
    drop_interval,
    paired_difference,
    quality_interval,
    resolve_metric,
    wilson,
)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilsons_interval_is_scipys(count, share):
    successes = round(share * count)
    wanted = scipy.stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson(successes, count) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Altman, Machin, Bryant, Gardner: Statistics with Confidence, 2nd ed. (2000), table 6.2
        ((14, 5, 0, 22), 0.011, 0.226),
        # Fagerland, Lydersen, Laake: Statistics in Medicine 33 (2014) 2850-2875, airway hyper-responsiveness
        ((1, 1, 7, 12), -0.507, -0.026),
    ],
)
def test_the_paired_interval_is_that_of_published_examples(table, low, high):
    assert paired_difference(*table) == pytest.approx((low, high), abs=6e-4)


@given(st.tuples(*[st.integers(0, 50)] * 4).filter(any))
def test_the_paired_interval_holds_the_difference_and_turns_round_with_the_models(table):
    both, first, second, neither = table
    low, high = paired_difference(both, first, second, neither)
    difference = (first - second) / sum(table)
    assert -1 - 1e-9 <= low <= difference + 1e-9
    assert difference - 1e-9 <= high <= 1 + 1e-9
    assert paired_difference(both, second, first, neither) == pytest.approx((-high, -low), abs=1e-12)


def test_the_paired_interval_covers_the_truth_in_about_95_of_100_samples():
    random = np.random.default_rng(0)
    shares = (0.90, 0.05, 0.02, 0.03)
    tables = random.multinomial(300, shares, size=2000)
    covered = np.mean([low <= 0.03 <= high for low, high in (paired_difference(*t) for t in tables.tolist())])
    assert 0.935 <= covered <= 0.975


def _classes(seed, count=400, wrong=0.1):
    random = np.random.default_rng(seed)
    targets = random.integers(0, 3, count)
    shown = np.where(random.random(count) < wrong, (targets + 1) % 3, targets)
    return {"y": np.eye(3)[shown]}, targets


def test_an_accuracy_has_wilsons_interval():
    outputs, targets = _classes(0)
    metric = resolve_metric("accuracy")
    right = round(metric(outputs, targets) * 400)
    assert quality_interval(metric, outputs, targets) == wilson(right, 400)


@pytest.mark.parametrize("name", ["mae", "rmse"])
def test_other_metrics_are_resampled_as_scipy_does_it(name):
    random = np.random.default_rng(1)
    outputs, targets = random.normal(size=(150, 4)), np.zeros((150, 4))
    metric = resolve_metric(name)
    power, root = (1, 1) if name == "mae" else (2, 0.5)
    each = (np.abs(outputs) ** power).mean(axis=1)
    wanted = scipy.stats.bootstrap(
        (each,),
        lambda rows, axis: rows.mean(axis=axis) ** root,
        n_resamples=20_000,
        method="percentile",
        random_state=1,
    ).confidence_interval
    found = quality_interval(metric, {"y": outputs}, targets)
    width = wanted.high - wanted.low
    assert found == pytest.approx((wanted.low, wanted.high), abs=0.12 * width)
    assert found == quality_interval(metric, {"y": outputs}, targets)  # the same figures every time


def test_a_drop_is_measured_on_the_same_samples():
    """Two models that err on the same samples differ by far less than their own intervals."""
    random = np.random.default_rng(2)
    targets = random.normal(size=500)
    baseline = targets + random.normal(size=500)
    metric = resolve_metric("mae")
    low, high = drop_interval(metric, {"y": baseline * 1.001}, {"y": baseline}, targets)
    own = quality_interval(metric, {"y": baseline}, targets)
    assert high - low < 0.02 * (own[1] - own[0])
    assert drop_interval(metric, {"y": baseline}, {"y": baseline}, targets) == (0, 0)


def test_a_drop_of_accuracy_is_newcombes_in_points():
    candidate, targets = _classes(0, wrong=0.12)
    baseline, _ = _classes(0, wrong=0.10)
    baseline_right = baseline["y"].argmax(1) == targets
    right = candidate["y"].argmax(1) == targets
    table = (
        (baseline_right & right).sum(), (baseline_right & ~right).sum(),
        (~baseline_right & right).sum(), (~baseline_right & ~right).sum(),
    )  # fmt: skip
    wanted = paired_difference(*map(int, table))
    found = drop_interval(resolve_metric("accuracy"), candidate, baseline, targets)
    assert found == pytest.approx((100 * wanted[0], 100 * wanted[1]))


def test_a_drop_of_cosine_is_counted_from_the_original():
    random = np.random.default_rng(3)
    original = {"e": random.normal(size=(200, 16))}
    moved = {"e": original["e"] + 0.1 * random.normal(size=(200, 16))}
    metric = resolve_metric("cosine")
    drop = 100 * (1 - metric(moved, original))
    low, high = drop_interval(metric, moved, original, original)
    assert low < drop < high < 1.2 * drop


def test_perplexity_is_resampled_by_texts_with_their_own_lengths():
    random = np.random.default_rng(4)
    logits, targets = random.normal(size=(60, 5, 7)), random.integers(0, 7, (60, 5))
    targets[:30, 2:] = -100
    targets[59] = -100  # a text in which nothing counts
    metric = resolve_metric("perplexity")
    low, high = quality_interval(metric, {"y": logits}, targets)
    assert low < metric({"y": logits}, targets) < high


def test_a_users_function_has_an_interval_where_it_asks_for_one():
    def hits(outputs, targets):
        return float((outputs["y"].argmax(1) == targets).mean())

    candidate, targets = _classes(0)
    assert quality_interval(resolve_metric(hits), candidate, targets) is None
    hits.resamples = 300
    found = quality_interval(resolve_metric(hits), candidate, targets)
    assert found == pytest.approx(quality_interval(resolve_metric("accuracy"), candidate, targets), abs=0.012)
    low, high = drop_interval(resolve_metric(hits), candidate, candidate, targets)
    assert (low, high) == (0, 0)
    hits.resamples = -1
    with pytest.raises(InputError, match=r"hits\.resamples"):
        resolve_metric(hits)


MEASURED = {"accuracy": 0.992, "baseline.accuracy": 0.996}
INTERVALS = {"accuracy": (0.979, 0.997), "baseline.accuracy": (-0.2, 1.1)}


def test_a_sentence_tells_the_interval_and_the_samples():
    gate = Gate("max_drop", 1, "accuracy")
    found = check_gates([gate], MEASURED, INTERVALS, samples=500)[0]
    assert found.passed
    assert found.sentence == (
        "max_drop(accuracy) passed: loss of accuracy, from 0.996 to 0.992, is 0.4 points (95 % interval -0.2 to"
        " 1.1, 500 samples), wanted at most 1 points"
    )
    assert found.to_json()["interval"] == [-0.2, 1.1]


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        (Gate("max_drop", 1, "accuracy", confident=True), False),
        (Gate("max_drop", 1.1, "accuracy", confident=True), True),
        (Gate("min_value", 0.98, "accuracy"), True),
        (Gate("min_value", 0.98, "accuracy", confident=True), False),
        (Gate("min_value", 0.979, "accuracy", confident=True), True),
    ],
)
def test_a_confident_gate_judges_the_worse_end(gate, passed):
    found = check_gates([gate], MEASURED, INTERVALS, samples=500)[0]
    assert found.passed is passed
    assert ("bound" in found.sentence) is gate.confident
    assert Gate.from_json(gate.to_json()) == gate


def test_a_confident_gate_without_an_interval_never_passes():
    gate = Gate("max_value", 5, "cost", confident=True)
    found = check_gates([gate], {"cost": 1.0})[0]
    assert not found.passed
    assert "no 95 % interval of cost is known" in found.sentence
    assert check_gates([Gate("max_value", 5, "cost")], {"cost": 1.0})[0].passed


def test_a_near_miss_is_told_in_as_many_digits_as_it_takes():
    gate = Gate("min_value", 1, "cosine")
    assert "cosine is 0.99998, wanted at least 1" in check_gates([gate], {"cosine": 0.99998})[0].sentence
