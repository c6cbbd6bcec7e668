"""Embeddings, neighbours, language models, top 5: against formulas by hand and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import top_k_accuracy_score

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation import METRICS, drop_of, evaluate, resolve_metric

ROWS = arrays.arrays(np.float32, (6, 3), elements=st.floats(-(2.0**90), 2.0**90, width=32))


def _cosine(a, b):
    a, b = [float(x) for x in a], [float(x) for x in b]
    lengths = math.hypot(*a) * math.hypot(*b)
    if not any(a) and not any(b):
        return 1.0
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


@given(ROWS, ROWS)
def test_cosine_is_the_mean_over_samples_of_the_formula(values, original):
    wanted = sum(_cosine(a, b) for a, b in zip(values, original, strict=True)) / len(values)
    found = evaluate({"embedding": values}, metric="cosine", reference={"embedding": original})
    assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "retrieval"])
def test_the_original_scores_one_and_a_scaled_copy_of_it_too(metric):
    original = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    strided = np.repeat(original, 2, axis=1)[:, ::2] * np.float32(3)  # not contiguous
    for values in (original, strided):
        found = evaluate({"y": values}, metric=metric, reference={"y": original})
        assert found == pytest.approx(1, abs=1e-7)
    assert resolve_metric(metric).against == "original"


@given(st.integers(0, 2**32 - 1), st.integers(3, 9))
def test_retrieval_names_the_neighbours_that_a_search_by_hand_finds(seed, count):
    random = np.random.default_rng(seed)
    values, original = random.normal(size=(2, count, 4))

    def nearest(rows, one):
        others = [other for other in range(count) if other != one]
        return max(others, key=lambda other: _cosine(rows[one], rows[other]))

    same = sum(nearest(values, one) == nearest(original, one) for one in range(count))
    assert evaluate({"y": values}, metric="retrieval", reference={"y": original}) == same / count


def test_a_sample_is_not_its_own_neighbour_and_equal_ones_are_told_apart_by_their_place():
    original = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    moved = original + np.array([[0.0, 0], [0, 0], [0, 0], [1e-9, 0]])
    assert evaluate({"y": moved}, metric="retrieval", reference={"y": original}) == 1
    swapped = original[[3, 1, 2, 0]]
    assert evaluate({"y": swapped}, metric="retrieval", reference={"y": original}) < 1


@given(
    arrays.arrays(np.float32, (2, 3, 5), elements=st.floats(-50, 50, width=32)),
    arrays.arrays(np.int64, (2, 3), elements=st.integers(-1, 4)),
)
def test_perplexity_is_exp_of_torchs_cross_entropy_in_float64(logits, targets):
    targets[0, 0] = 1
    targets[targets == -1] = -100  # left out
    wanted = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double().reshape(-1, 5), torch.from_numpy(targets).reshape(-1)
    ).exp()
    found = evaluate({"logits": logits}, metric="perplexity", targets=targets)
    assert found == pytest.approx(float(wanted), rel=1e-12)
    assert not resolve_metric("perplexity").higher_is_better


def test_perplexity_of_huge_logits_and_of_a_uniform_model():
    sure = np.full((1, 2, 3), -3e4, np.float32)
    sure[..., 1] = 3e4
    assert evaluate({"y": sure}, metric="perplexity", targets=np.array([[1, 1]])) == 1
    assert evaluate({"y": sure * 0}, metric="perplexity", targets=np.array([[0, -100]])) == pytest.approx(3)


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (np.full((1, 2), -100), "0 counted"),
        (np.array([[0, 3]]), "1 outside the vocabulary"),
        (np.array([[0.0, 1.0]]), "float64"),
        (np.array([0, 1]), r"shape \(2,\)"),
    ],
)
def test_targets_that_perplexity_cannot_take(targets, reason):
    with pytest.raises(InputError, match=reason):
        evaluate({"y": np.zeros((1, 2, 3))}, metric="perplexity", targets=targets)


def test_perplexity_needs_logits_of_tokens():
    with pytest.raises(InputError, match="perplexity:<output>"):
        evaluate({"y": np.zeros((2, 3))}, metric="perplexity", targets=np.zeros(2, int))


@given(st.integers(0, 2**32 - 1))
def test_top5_is_scikit_learns(seed):
    random = np.random.default_rng(seed)
    scores, targets = random.normal(size=(20, 9)), random.integers(0, 9, 20)
    found = evaluate({"y": scores}, metric="top5", targets=targets)
    assert found == top_k_accuracy_score(targets, scores, k=5, labels=range(9))
    scores[:, 0] = np.nan
    assert evaluate({"y": scores}, metric="top5", targets=targets) == 0


def test_agreement_counts_equal_choices():
    original = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.5, 0.6]])
    values = np.array([[2.0, 9], [0, 1], [1, 2], [np.nan, 1]])
    assert evaluate({"y": values}, metric="agreement", reference={"y": original}) == 0.5
    with pytest.raises(InputError, match="agreement:<output>"):
        evaluate({"y": values[:, :1]}, metric="agreement", reference={"y": original[:, :1]})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("metric", ["cosine", "retrieval"])
def test_what_is_not_finite_is_refused_and_counted(metric, bad):
    values = np.ones((4, 2))
    values[2, 1] = bad
    with pytest.raises(InputError, match="NaN or infinity in 1 of 4 samples"):
        evaluate({"y": values}, metric=metric, reference={"y": np.ones((4, 2))})


def test_two_samples_have_but_one_neighbour():
    with pytest.raises(InputError, match="3 or more"):
        evaluate({"y": np.ones((2, 2))}, metric="retrieval", reference={"y": np.ones((2, 2))})


@pytest.mark.parametrize("metric", METRICS)
def test_each_metric_says_what_it_lacks(metric):
    with pytest.raises(InputError, match=f"the metric {metric} can't be measured"):
        evaluate({"y": np.ones((4, 2))}, metric=metric)


def test_outputs_of_another_shape_than_the_originals():
    with pytest.raises(InputError, match=r"shape \(4, 3\).*shape \(4, 2\)"):
        evaluate({"y": np.ones((4, 2))}, metric="cosine", reference={"y": np.ones((4, 3))})


def test_a_users_function_may_compare_with_the_original():
    def distance(outputs, original, scale=1):
        return scale * float(np.abs(outputs["y"] - original["y"]).max())

    distance.against, distance.higher_is_better = "original", False
    outputs, reference = {"y": np.array([1.0, 3])}, {"y": np.array([1.0, 1])}
    assert evaluate(outputs, metric=distance, reference=reference, scale=2) == 4
    distance.against = "teacher"
    with pytest.raises(InputError, match=r"distance\.against"):
        resolve_metric(distance)


def test_a_metric_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="a finite float"):
        evaluate({"y": np.array([np.nan])}, metric="mae", targets=np.zeros(1))


def test_drops_of_shares_are_in_points_others_in_their_unit():
    assert drop_of("accuracy", 0.97, 0.98, higher_is_better=True) == pytest.approx(1)
    assert drop_of("cosine:embedding", 0.985, 1, higher_is_better=True) == pytest.approx(1.5)
    assert drop_of("perplexity", 21, 20, higher_is_better=False) == 1
    assert drop_of("f1", 0.7, 0.8, higher_is_better=True) == pytest.approx(0.1)
