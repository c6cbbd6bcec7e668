"""Gradients over batches and what is scored by them, against formulas by hand."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from airflow_model_deploy.engine.compression import (
    accumulated_gradients,
    batch_gradients,
    prunable_weights,
    resolve_loss,
    score_masks,
    taylor_scores,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Dataset
from tests.conftest import REPOSITORY
from tests.engine.compression.nets import build

W = [1.0, -5, 3, 7, 2, -8, 6, -1, 9, 0]
G = [0.2, 0.05, 0.3, 0.1, 0.15, 0.05, 0.2, 0.1, 0.3, 0.05]
MSE = resolve_loss("mse", None)


def total(outputs: torch.Tensor, targets: object) -> torch.Tensor:
    return outputs.sum()


def linear(weight: list[float], dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(len(weight), 1, bias=False).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weight], dtype=torch.float64))
    return layer


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_worked_case(dtype: type) -> None:
    """A linear layer that is fed g has the gradient g; of its ten weights five go, and 0.15, the mean, stays."""
    model = linear(W, torch.float32 if dtype is np.float32 else torch.float64)
    weights = {"weight": model.weight}
    data = Dataset({"input": np.array([G], dtype)}, None)
    scores = accumulated_gradients(model, weights, data, total)
    assert scores["weight"].flatten().tolist() == np.array(G, dtype).astype(float).tolist()
    kept = score_masks(scores, rule="mean", weights=weights)["weight"].flatten().tolist()
    assert [g for g, k in zip(G, kept, strict=True) if not k] == [0.05, 0.1, 0.05, 0.1, 0.05]
    assert [W[i] for i in range(10) if kept[i]] == [1, 3, 2, 6, 9]


def test_taylor_worked_case() -> None:
    """|w g| is 0.2 .25 .9 .7 .3 .4 1.2 .1 2.7 0; its mean .675."""
    model = linear(W)
    weights = {"weight": model.weight}
    data = Dataset({"input": np.array([G], np.float32)}, None)
    scores = taylor_scores(weights, accumulated_gradients(model, weights, data, total))
    np.testing.assert_allclose(scores["weight"][0], np.abs(np.array(W) * G), rtol=1e-6, atol=1e-9)
    kept = score_masks(scores, rule="mean", weights=weights)["weight"].flatten().tolist()
    assert [W[i] for i in range(10) if kept[i]] == [3, 7, 6, 9]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 12), st.integers(1, 5), st.sampled_from(["sum_of_abs", "abs_of_sum"]), st.integers(0, 99)
)
def test_sums_over_batches_match_the_formula(samples: int, batch: int, reduction: str, seed: int) -> None:
    """The mse of y = Wx over a batch has the gradient 2/(n k) sum (Wx - t) x'."""
    random = np.random.default_rng(seed)
    x, t = random.standard_normal((samples, 4)), random.standard_normal((samples, 3))
    layer = nn.Linear(4, 3, bias=False).double()
    w = layer.weight.detach().numpy()
    found = accumulated_gradients(
        layer,
        {"weight": layer.weight},
        Dataset({"input": x}, t),
        MSE,
        reduction=reduction,  # type: ignore[arg-type]
        batch_size=batch,
    )["weight"]
    parts = []
    for begin in range(0, samples, batch):
        xs, ts = x[begin : begin + batch], t[begin : begin + batch]
        parts.append(2 / ts.size * (xs @ w.T - ts).T @ xs)
    want = np.abs(parts).sum(0) if reduction == "sum_of_abs" else np.abs(np.sum(parts, 0))
    np.testing.assert_allclose(found, want, rtol=1e-10, atol=1e-12)


def test_bfloat16_gradients_are_added_up_in_float64() -> None:
    layer = linear([0.5, 0.25], torch.bfloat16)
    x = np.full((300, 2), 1.0, np.float32)
    cast = nn.Sequential(_Cast(), layer)
    found = accumulated_gradients(cast, {"w": layer.weight}, Dataset({"x": x}, None), total, batch_size=1)
    assert found["w"].tolist() == [[300.0, 300.0]]  # bfloat16 would have stopped at 256


class _Cast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16)


def test_the_model_is_left_as_it_was_and_batch_norms_do_not_learn() -> None:
    model, _ = build("ResidualCNN")
    model.train()
    model.stem.eval()
    for parameter in model.conv1.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = Dataset({"x": np.ones((4, 1, 8, 8), np.float32)}, np.array([0, 1, 2, 3]))
    weights = prunable_weights(model)
    found = accumulated_gradients(model, weights, data, resolve_loss("cross_entropy", None), batch_size=2)
    assert found["conv1.weight"].any()  # frozen layers are scored too
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert not model.stem.training
    assert not any(parameter.requires_grad for parameter in model.conv1.parameters())


def test_a_weight_that_no_batch_uses_scores_zero() -> None:
    model = nn.Sequential(nn.Linear(2, 1))
    unused = nn.Parameter(torch.ones(3, 2))
    data = Dataset({"input": np.ones((2, 2), np.float32)}, None)
    found = next(batch_gradients(model, {"unused": unused, "w": model[0].weight}, data, total))
    assert not found["unused"].any()
    assert found["w"].tolist() == [[2.0, 2.0]]


def _constant(outputs: torch.Tensor, targets: object) -> torch.Tensor:
    return (outputs * 0).sum()


def _detached(outputs: torch.Tensor, targets: object) -> torch.Tensor:
    return outputs.detach().sum()


@pytest.mark.parametrize(
    ("loss", "x", "reason"),
    [
        (_constant, 1.0, "found: 0 for every weight"),
        (_detached, 1.0, "gradients pass through"),
        (lambda outputs, _: outputs, 1.0, r"the loss; found: shape \[2, 3\]"),
        (total, np.nan, "the loss of batch 0; found: nan"),
        (
            lambda outputs, _: (outputs - outputs).sqrt().sum(),
            1.0,
            "the gradient of weight in batch 0; found: NaN",
        ),
    ],
)
def test_a_loss_that_gives_no_gradients_is_refused(loss: object, x: float, reason: str) -> None:
    layer = nn.Linear(4, 3, bias=False)
    data = Dataset({"input": np.full((2, 4), x, np.float32)}, None)
    with pytest.raises(InputError, match=reason):
        accumulated_gradients(layer, {"weight": layer.weight}, data, loss)  # type: ignore[arg-type]


def test_inputs_that_forward_does_not_take_are_told_with_their_shapes() -> None:
    layer = nn.Linear(4, 3)
    data = Dataset({"input": np.ones((2, 5), np.float32)}, None)
    with pytest.raises(InputError, match=r"input: float32 \[2, 5\]"):
        accumulated_gradients(layer, {"weight": layer.weight}, data, total)


def test_the_worked_case_of_the_docs_prints_what_they_say() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "docs" / "examples" / "pruning_by_mean.py"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout in (REPOSITORY / "docs" / "pruning.md").read_text()
