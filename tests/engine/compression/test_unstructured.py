from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_model_deploy.engine.compression import (
    apply_masks,
    magnitude_masks,
    prunable_weights,
    score_masks,
    zero_fraction,
    zero_report,
)
from airflow_model_deploy.engine.errors import InputError
from tests.engine.compression.nets import build, mlp

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def exact_mean_rule(values: list[float], epsilon: float = 2.0**-23) -> list[bool]:
    """Kept or not, in rational arithmetic: |w_i| < (1/n) sum |w| goes, but for the machine epsilon."""
    mean = sum(abs(Fraction(v)) for v in values) / len(values)
    return [abs(Fraction(v)) >= mean * (1 - Fraction(epsilon)) for v in values]


def test_worked_case() -> None:
    weight = torch.tensor([1.0, -5, 3, 7, 2, -8, 6, -1, 9, 0])  # mean magnitude 4.2
    mask = magnitude_masks({"w": weight}, criterion="mean")["w"]
    assert weight[mask].tolist() == [-5, 7, -8, 6, 9]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e4, 1e4, width=16), min_size=1, max_size=60),
    st.sampled_from(DTYPES),
)
def test_mean_rule_is_exact_in_every_type(values: list[float], dtype: torch.dtype) -> None:
    weight = torch.tensor(values, dtype=torch.float64).to(dtype)
    mask = magnitude_masks({"w": weight}, criterion="mean")["w"]
    assert mask.tolist() == exact_mean_rule(
        weight.double().tolist(), torch.finfo(dtype).eps if dtype == torch.float64 else 2.0**-23
    )


@settings(deadline=None, max_examples=60)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 50))
def test_equal_values_equal_the_mean_and_stay(value: float, count: int) -> None:
    weight = torch.full((count,), value, dtype=torch.float64) * torch.tensor(
        [(-1.0) ** i for i in range(count)]
    )
    assert magnitude_masks({"w": weight}, criterion="mean")["w"].all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decimal_equal_to_the_mean_of_decimals_stays_however_it_is_stored(dtype: torch.dtype) -> None:
    """The sum of |g| is 1.5 and the threshold 0.15; the doubles' own mean lies above the double nearest to 0.15."""
    g = [0.2, 0.05, 0.3, 0.1, 0.15, 0.05, 0.2, 0.1, 0.3, 0.05]
    mask = score_masks({"g": torch.tensor(g, dtype=torch.float64).to(dtype)}, rule="mean")["g"]
    assert [i for i, kept in enumerate(mask.tolist()) if not kept] == [1, 3, 5, 7, 9]
    assert mask[4]  # 0.15 itself
    assert sum(Fraction(v) for v in g) / 10 > Fraction(0.15)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, 9999), min_size=1, max_size=30),
    st.integers(0, 9999),
    st.sampled_from([10, 100, 1000]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_stored_numbers_decide_as_the_decimals_that_they_stand_for(
    digits: list[int], tie: int, unit: int, dtype: torch.dtype
) -> None:
    """`tie` is the mean of all of them, where a last number can make it so; the reference counts in decimals."""
    last = tie * (len(digits) + 2) - sum(digits) - tie
    decimals = [Fraction(d, unit) for d in (tie, *digits, *([last] if last >= 0 else []))]
    mean = sum(decimals) / len(decimals)
    weight = torch.tensor([float(d) for d in decimals], dtype=torch.float64).to(dtype)
    mask = score_masks({"w": weight}, rule="mean")["w"]
    assert mask.tolist() == [d >= mean for d in decimals]


def test_what_differs_by_more_than_a_rounding_error_is_told_apart() -> None:
    below = torch.tensor([1 - 4 * 2.0**-24, 1.0 + 4 * 2.0**-24, *[1.0] * 30])
    assert score_masks({"w": below}, rule="mean")["w"].tolist() == [False, *[True] * 31]
    nearly = torch.tensor([2.0, 1e-9, 1.0])  # the mean is 1 + 3e-10: no float32 can say so
    assert score_masks({"w": nearly}, rule="mean")["w"].tolist() == [True, False, True]
    assert not score_masks({"w": nearly.double()}, rule="mean")["w"][2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_equal_to_the_mean_of_many_stays(dtype: torch.dtype) -> None:
    base = torch.tensor([0.1]).to(dtype)
    weight = torch.cat([base * 0, base * 2, base]).repeat(3333)  # the mean is exactly `base`
    mask = magnitude_masks({"w": weight}, criterion="mean")["w"]
    assert mask.reshape(-1, 3).all(0).tolist() == [False, True, True]


def test_subnormals_and_huge_values_together() -> None:
    values = [5e-324, 1e-310, 1.0, 1e300, 1.7e308, 1.7e308, 0.0]
    mask = magnitude_masks({"w": torch.tensor(values, dtype=torch.float64)}, criterion="mean")["w"]
    assert mask.tolist() == exact_mean_rule(values, 2.0**-52)


def test_many_weights_match_a_reference_sum() -> None:
    weight = torch.randn(5_000_000, generator=torch.Generator().manual_seed(0))
    mean = math.fsum(weight[:200_000].abs().double().tolist()) / 200_000
    mask = magnitude_masks({"w": weight[:200_000]}, criterion="mean")["w"]
    assert torch.equal(mask, weight[:200_000].abs().double() >= mean)
    assert (
        0.57 < 1 - magnitude_masks({"w": weight}, criterion="mean")["w"].double().mean() < 0.58
    )  # Gaussian: 57.5 %


def test_zeros_and_non_contiguous_memory() -> None:
    weight = torch.randn(6, 8).T[::2]
    mask = magnitude_masks({"w": weight}, criterion="mean")["w"]
    assert mask.shape == weight.shape
    assert mask.flatten().tolist() == exact_mean_rule(weight.flatten().tolist())
    assert magnitude_masks({"w": torch.zeros(5)}, criterion="mean")["w"].all()  # 0 is not below 0


def test_global_and_tensor_scope_use_different_means() -> None:
    weights = {"small": torch.tensor([1.0, 2.0]), "large": torch.tensor([10.0, 20.0])}
    together = magnitude_masks(weights, criterion="mean", scope="global")
    apart = magnitude_masks(weights, criterion="mean", scope="tensor")
    assert together["small"].tolist() == [False, False]
    assert together["large"].tolist() == [True, True]
    assert apart["small"].tolist() == apart["large"].tolist() == [False, True]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    st.sampled_from(["0.1", "0.29", "0.5", "0.9", "0.999"]),
    st.sampled_from(DTYPES),
)
def test_ratio_removes_exactly_the_floor_ties_by_index(
    values: list[int], ratio: str, dtype: torch.dtype
) -> None:
    weights = {
        "a": torch.tensor(values[::2], dtype=dtype),
        "b": torch.tensor(values[1::2] or [4], dtype=dtype),
    }
    flat = [*weights["a"].tolist(), *weights["b"].tolist()]
    count = math.floor(Fraction(ratio) * len(flat))
    gone = set(sorted(range(len(flat)), key=lambda i: (abs(flat[i]), i))[:count])
    masks = magnitude_masks(weights, criterion="ratio", ratio=float(ratio))
    kept = [*masks["a"].tolist(), *masks["b"].tolist()]
    assert [i for i, k in enumerate(kept) if not k] == sorted(gone)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    with pytest.raises(InputError, match=r"weight conv\.weight.*1 values"):
        magnitude_masks({"conv.weight": torch.tensor([1.0, bad])}, criterion="mean")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"criterion": "median"}, "mean or ratio"),
        ({"criterion": "mean", "scope": "layer"}, "global or tensor"),
        ({"criterion": "mean", "scope": "row"}, "global or tensor"),
        ({"criterion": "mean", "scope": "2:4"}, "global or tensor"),
        ({"criterion": "ratio", "scope": "layer", "ratio": 0.5}, "row, or a pattern"),
        ({"criterion": "ratio", "scope": "4:4"}, "0 < N < M"),
        ({"criterion": "ratio", "scope": "1:4"}, "at least 4"),
        ({"criterion": "ratio"}, "between 0 and 1"),
        ({"criterion": "ratio", "ratio": 1.0}, "between 0 and 1"),
    ],
)
def test_wrong_arguments(arguments: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        magnitude_masks({"w": torch.ones(3)}, **arguments)


def test_nothing_to_prune_is_refused() -> None:
    with pytest.raises(InputError, match="no elements"):
        magnitude_masks({}, criterion="mean")
    with pytest.raises(InputError, match="none of 3 candidates left"):
        prunable_weights(mlp(), exclude=["*"])


def test_selection_takes_layers_not_norms_and_follows_patterns() -> None:
    model, _ = build("ResidualCNN")
    assert set(prunable_weights(model)) == {
        f"{n}.weight" for n in ("stem", "conv1", "conv2", "depthwise", "pointwise", "grouped", "head")
    }
    assert set(prunable_weights(model, ["conv*"], ["*2*"])) == {"conv1.weight"}
    with pytest.raises(InputError, match="exclude pattern 'haed"):
        prunable_weights(model, exclude=["haed.*"])


def test_applied_masks_leave_exact_zeros_and_the_report_counts_them() -> None:
    model, _ = build("PlainCNN")
    weights = prunable_weights(model, exclude=["head.*"])
    before = {n: w.detach().clone() for n, w in weights.items()}
    masks = magnitude_masks(weights, criterion="ratio", ratio=0.25)
    apply_masks(model, masks)
    report = zero_report(weights)
    elements = sum(w.numel() for w in weights.values())
    assert (report.zeros, report.elements) == (elements // 4, elements)
    assert report.fraction == zero_fraction(weights) == report.to_json()["fraction"]
    assert zero_fraction(model) < report.fraction  # of the whole model, head included
    for name, weight in weights.items():
        assert torch.equal(weight, torch.where(masks[name], before[name], torch.zeros(())))
        assert not np.signbit(weight.detach().numpy()[~masks[name].numpy()]).any()
    with pytest.raises(InputError, match="no such parameter"):
        apply_masks(model, {"conv9.weight": torch.ones(1, dtype=torch.bool)})


def test_recurrent_and_attention_layers_are_pruned_and_embeddings_are_not() -> None:
    model = torch.nn.ModuleDict(
        {
            "words": torch.nn.Embedding(10, 8),
            "rnn": torch.nn.LSTM(8, 8),
            "attention": torch.nn.MultiheadAttention(8, 2, add_bias_kv=True),
        }
    )
    assert set(prunable_weights(model)) == {
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }
