from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation import output_error, resolve_metric

SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [np.nan, 1.0]], np.float32)


def test_accuracy_counts_argmax_of_the_first_or_the_named_output() -> None:
    targets = np.array([1, 0, 0, 1])
    outputs = {"scores": SCORES, "other": -SCORES}
    assert resolve_metric("accuracy")(outputs, targets) == 0.5  # the row with a NaN is wrong
    assert resolve_metric("accuracy:other")(outputs, targets) == 0.25
    maps = np.zeros((2, 3, 4, 4))
    maps[:, 2] = 1
    assert resolve_metric("accuracy")({"maps": maps}, np.full((2, 4, 4), 2)) == 1


@given(arrays.arrays(np.float32, (5, 2), elements=st.floats(-100, 100, width=32)))
def test_mae_and_rmse_match_the_formula_in_float64(values: np.ndarray) -> None:
    targets = np.arange(10, dtype=np.float32).reshape(5, 2)
    errors = [float(a) - float(b) for a, b in zip(values.flat, targets.flat, strict=True)]
    assert resolve_metric("mae")({"y": values}, targets) == pytest.approx(
        sum(map(abs, errors)) / 10, rel=1e-12
    )
    assert resolve_metric("rmse")({"y": values}, targets) == pytest.approx(
        math.sqrt(sum(e * e for e in errors) / 10), rel=1e-12
    )


def test_one_column_against_flat_targets_does_not_broadcast() -> None:
    assert resolve_metric("mae")({"y": np.array([[1.0], [2.0]])}, np.array([1.0, 4.0])) == 1


def test_which_way_is_good() -> None:
    assert [resolve_metric(n).higher_is_better for n in ("accuracy", "mae", "rmse")] == [True, False, False]


def test_a_users_function() -> None:
    def hits(outputs: dict[str, np.ndarray], targets: np.ndarray) -> np.float32:
        return np.float32((outputs["y"] == targets).mean())

    metric = resolve_metric(hits, higher_is_better=False)
    assert (metric.name, metric.higher_is_better) == ("hits", False)
    assert metric({"y": np.ones(4)}, np.array([1, 1, 0, 0])) == 0.5
    with pytest.raises(InputError, match=r"metric words.*one number"):
        resolve_metric(lambda *_: "good", name="words")({}, np.ones(1))


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "reason"),
    [
        ("accuracy", {"y": SCORES}, np.zeros(3, int), r"shape \(3,\).*shape \(4,\)"),
        ("accuracy", {"y": SCORES}, np.zeros((4, 2)), r"shape \(4, 2\)"),
        ("accuracy", {"y": SCORES[:, :1]}, np.zeros(4, int), "at least 2 classes"),
        ("accuracy:z", {"y": SCORES}, np.zeros(4, int), r"one of \['y'\]"),
        ("accuracy", {}, np.zeros(4, int), "none"),
        ("mae", {"y": SCORES}, np.zeros(4), r"shape \(4, 2\)"),
        ("f1", {}, np.zeros(4), "accuracy, top5, mae, rmse, perplexity, cosine"),
        (3, {}, np.zeros(4), "a name or a function"),
    ],
)
def test_metrics_that_cannot_be(metric: object, outputs: dict, targets: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        resolve_metric(metric)(outputs, targets)  # type: ignore[arg-type]


def test_targets_by_name_go_to_the_output_of_that_name() -> None:
    outputs = {"value": np.array([[1.0], [2.0]]), "kind": np.array([[0.1, 0.9], [0.8, 0.2]])}
    targets = {"kind": np.array([1, 1]), "value": np.array([1.0, 5.0])}
    assert resolve_metric("accuracy:kind")(outputs, targets) == 0.5
    assert resolve_metric("mae")(outputs, targets) == 1.5  # the first output is the value
    with pytest.raises(InputError, match=r"targets of output kind.*Name the targets after the outputs"):
        resolve_metric("accuracy:kind")(outputs, {"label": np.array([1, 1])})


def test_a_users_function_may_say_that_less_is_better() -> None:
    def cost(outputs: dict, targets: np.ndarray) -> float:
        return 1.0

    assert resolve_metric(cost).higher_is_better is True
    cost.higher_is_better = False  # type: ignore[attr-defined]
    assert resolve_metric(cost).higher_is_better is False
    assert resolve_metric(cost, higher_is_better=True).higher_is_better is True


def test_errors_between_outputs() -> None:
    a = np.array([[3.0, 4.0], [1.0, 0.0]])
    b = np.array([[4.0, 3.0], [1.0, 0.0]], np.float32)
    error = output_error({"y": a, "z": a[:, 0]}, {"y": b, "z": a[:, 0]})
    assert (error["y"].max_abs, error["y"].mean_abs, error["y"].top1_agreement) == (1, 0.5, 0.5)
    assert error["y"].cosine == pytest.approx((24 / 25 + 1) / 2)
    assert (error["z"].max_abs, error["z"].cosine, error["z"].top1_agreement) == (0, 1, None)


def test_nan_and_infinity_never_hide() -> None:
    nan, inf = math.nan, math.inf
    same = output_error({"y": np.array([nan, inf, -inf, 0.0])}, {"y": np.array([nan, inf, -inf, 0.0])})["y"]
    assert (same.max_abs, same.mismatched_nan) == (0, 0)
    for found in ([nan, 1.0], [inf, 1.0], [-inf, 1.0]):
        error = output_error({"y": np.array([1.0, 1.0])}, {"y": np.array(found)})["y"]
        assert error.max_abs == inf
        assert math.isnan(error.cosine)
        assert error.to_json()["max_abs"] is None
    assert output_error({"y": np.array([inf])}, {"y": np.array([-inf])})["y"].max_abs == inf
    assert output_error({"y": np.array([nan])}, {"y": np.array([1.0])})["y"].mismatched_nan == 1


def test_cosine_of_zero_and_of_extreme_rows() -> None:
    rows = np.array([[0.0, 0.0], [1e300, 1e300], [1e-300, 0.0], [0.0, 0.0]])
    others = np.array([[0.0, 0.0], [1e300, 1e300], [1e-300, 0.0], [1.0, 0.0]])
    assert output_error({"y": rows}, {"y": others})["y"].cosine == pytest.approx(0.75)


def test_outputs_that_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="outputs to compare"):
        output_error({"y": np.ones(1)}, {"z": np.ones(1)})
    with pytest.raises(InputError, match="output y"):
        output_error({"y": np.ones((2, 1))}, {"y": np.ones(2)})
