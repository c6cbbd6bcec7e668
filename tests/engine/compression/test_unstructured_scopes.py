"""Rows, N:M groups and earlier zeros, against references that walk through every weight."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from airflow_model_deploy.engine.compression import (
    Layout,
    apply_masks,
    joined_masks,
    magnitude_masks,
    prunable_weights,
    score_masks,
    weight_layouts,
    zero_masks,
    zero_report,
)
from airflow_model_deploy.engine.errors import InputError
from tests.engine.compression.nets import mlp

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def tensors(shape: tuple[int, ...]) -> st.SearchStrategy[torch.Tensor]:
    """Small integers, so that ties and zeros abound; some transposed in memory."""

    def made(values: list[int], dtype: torch.dtype, turned: bool) -> torch.Tensor:
        tensor = torch.tensor(values, dtype=dtype).reshape(shape)
        return tensor.transpose(0, 1).contiguous().transpose(0, 1) if turned else tensor

    size = math.prod(shape)
    lists = st.lists(st.integers(-4, 4), min_size=size, max_size=size)
    return st.builds(made, lists, st.sampled_from(DTYPES), st.booleans())


def lowest(scores: list[float], count: int) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda i: (scores[i], i))[:count])


@settings(deadline=None, max_examples=40)
@given(tensors((4, 10)), st.sampled_from(["0.1", "0.29", "0.5", "0.99"]))
def test_each_row_loses_its_own_smallest_share(weight: torch.Tensor, ratio: str) -> None:
    mask = magnitude_masks({"w": weight}, criterion="ratio", scope="row", ratio=float(ratio))["w"]
    for row, kept in zip(weight.double().abs().tolist(), mask.tolist(), strict=True):
        gone = lowest(row, math.floor(Fraction(ratio) * len(row)))
        assert {i for i, k in enumerate(kept) if not k} == gone


@settings(deadline=None, max_examples=40)
@given(tensors((3, 10)), st.sampled_from([(2, 4), (1, 2), (1, 4), (3, 8), (4, 10)]))
def test_n_of_m_stay_in_each_group_and_the_rest_stays_whole(
    weight: torch.Tensor, pattern: tuple[int, int]
) -> None:
    n, m = pattern
    mask = magnitude_masks({"w": weight}, criterion="ratio", scope=f"{n}:{m}")["w"]
    for row, kept in zip(weight.double().abs().tolist(), mask.tolist(), strict=True):
        for begin in range(0, len(row) // m * m, m):
            gone = lowest(row[begin : begin + m], m - n)
            assert {i for i in range(m) if not kept[begin + i]} == gone
        assert all(kept[len(row) // m * m :])


def test_the_groups_of_a_convolution_run_along_its_input_channels() -> None:
    weight = torch.randn(5, 8, 3, 2, generator=torch.Generator().manual_seed(0))
    mask = magnitude_masks({"w": weight}, criterion="ratio", scope="2:4")["w"]
    assert (mask.reshape(5, 2, 4, 3, 2).sum(2) == 2).all()
    magnitudes = weight.abs().reshape(5, 2, 4, 3, 2)
    second = magnitudes.sort(2).values[:, :, 2:3]
    assert torch.equal(mask, (magnitudes >= second).reshape(weight.shape))


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose2d(8, 6, 3, groups=2), nn.ConvTranspose1d(4, 10, 3), nn.Conv2d(8, 6, 3, groups=2)],
)
def test_a_row_is_what_makes_one_output(layer: nn.Module) -> None:
    """The inputs that an output depends on are found by asking autograd, not by knowing the layout."""
    layout = weight_layouts(nn.Sequential(layer))["0.weight"]
    rows = layout.rows(layer.weight)
    assert torch.equal(layout.back(rows), layer.weight)
    inputs = layer.in_channels
    x = torch.randn(1, inputs, *[7] * (layer.weight.dim() - 2))
    for output in range(layer.out_channels):
        used = torch.autograd.grad(layer(x)[0, output].sum(), layer.weight)[0] != 0
        chosen = torch.zeros_like(rows, dtype=torch.bool)
        chosen[output] = True
        assert torch.equal(used, layout.back(chosen))


def test_a_transposed_linear_layer_is_pruned_by_its_outputs() -> None:
    from tests.engine.compression.nets import GptBlock

    block = GptBlock()
    layouts = weight_layouts(block)
    assert layouts["c_fc.weight"] == Layout(transposed=True)
    masks = magnitude_masks(
        prunable_weights(block, ["c_fc*"]), criterion="ratio", scope="row", ratio=0.5, layouts=layouts
    )
    assert (masks["c_fc.weight"].sum(0) == block.c_fc.nx // 2).all()


@settings(deadline=None, max_examples=30)
@given(tensors((6, 8)), st.sampled_from(["global", "tensor", "row", "2:4"]), st.integers(0, 99))
def test_zeros_go_first_whatever_their_score(weight: torch.Tensor, scope: str, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    weights = {"a": weight, "b": weight.flip(0)}
    scores = {name: torch.rand(weight.shape, dtype=torch.float64, generator=drawn) + 1 for name in weights}
    scores = {name: torch.where(weights[name] == 0, 1e9, s) for name, s in scores.items()}
    masks = score_masks(scores, rule="ratio", scope=scope, ratio=0.5, weights=weights)
    rows = masks["a"].reshape(-1, 4) if scope == "2:4" else masks["a"]
    zero = (weights["a"] == 0).reshape(rows.shape)
    if scope in ("row", "2:4"):
        gone = rows.shape[1] // 2
        assert (((~rows) & zero).sum(1) == zero.sum(1).clamp(max=gone)).all()
    total = sum(int((~m).sum()) for m in masks.values())
    assert total == weight.numel()


def test_a_second_pruning_keeps_the_zeros_of_the_first() -> None:
    torch.manual_seed(0)
    model = mlp()
    weights = prunable_weights(model)
    apply_masks(model, magnitude_masks(weights, criterion="ratio", ratio=0.3))
    earlier = zero_masks(model)
    scores = {name: torch.rand(w.shape) for name, w in weights.items()}
    masks = score_masks(scores, rule="mean", weights=weights)
    assert any((masks[n] & (weights[n] == 0)).any() for n in weights)  # the mean rule alone would free some
    joined = joined_masks(masks, earlier)
    assert not any((joined[n] & (weights[n] == 0)).any() for n in weights)
    apply_masks(model, joined)
    report = zero_report(model)
    assert report.zeros == sum(int((~m).sum()) for m in joined.values())
    assert zero_masks(mlp()) == {}
    assert joined_masks({}, earlier).keys() == earlier.keys()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scope", ["global", "tensor", "row", "2:4"])
def test_constants_zeros_and_single_elements(dtype: torch.dtype, scope: str) -> None:
    weights = {"c": torch.full((2, 4), 0.3, dtype=dtype), "z": torch.zeros(2, 4, dtype=dtype)}
    weights["one"] = torch.ones(1, 1, dtype=dtype)
    masks = magnitude_masks(weights, criterion="ratio", scope=scope, ratio=0.5)
    gone = {name: int((~mask).sum()) for name, mask in masks.items()}
    assert gone == ({"c": 0, "z": 8, "one": 0} if scope == "global" else {"c": 4, "z": 4, "one": 0})
    assert masks["one"].all()
    if scope != "global":
        assert masks["c"].tolist() == [[False, False, True, True]] * 2 or scope == "tensor"


@pytest.mark.parametrize(
    ("weights", "scores", "reason"),
    [
        ({"a": [1.0]}, {"a": [math.nan]}, "the score of weight a.*1 values"),
        ({"a": [math.inf]}, {"a": [1.0]}, "weight a.*1 values"),
    ],
)
def test_scores_and_weights_that_are_not_finite_are_named(weights: dict, scores: dict, reason: str) -> None:
    tensors = [{name: torch.tensor(values) for name, values in d.items()} for d in (weights, scores)]
    with pytest.raises(InputError, match=reason):
        score_masks(tensors[1], rule="mean", weights=tensors[0])


def test_integers_are_refused() -> None:
    with pytest.raises(InputError, match=r"weight a.*int8.*floating"):
        magnitude_masks({"a": torch.ones(3, dtype=torch.int8)}, criterion="mean")


def test_a_row_of_a_large_matrix_matches_numpy() -> None:
    weight = torch.randn(64, 1000, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    mask = magnitude_masks({"w": weight}, criterion="ratio", scope="row", ratio=0.37)["w"]
    order = np.argsort(weight.double().abs().numpy(), axis=1, kind="stable")
    assert all(not mask[i, order[i, :370]].any() and mask[i, order[i, 370:]].all() for i in range(64))
