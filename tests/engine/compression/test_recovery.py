from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from airflow_model_deploy.engine.compression import (
    fit_in_place,
    magnitude_masks,
    masked_training,
    prunable_weights,
)
from airflow_model_deploy.engine.errors import InputError
from tests.engine.compression.nets import mlp

OPTIMIZERS = [
    lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
]


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return magnitude_masks(prunable_weights(model), criterion="mean")


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_pruned_weights_stay_zero_after_every_step(make: Any) -> None:
    model = mlp()
    optimizer = make(model.parameters())
    train(model, optimizer)  # momentum from before pruning would move the zeros
    masks = masks_of(model)
    parameters = dict(model.named_parameters())
    before = parameters["0.weight"].detach().clone()
    with masked_training(model, masks):
        for _ in range(3):
            train(model, optimizer, steps=1)
            assert all(not parameters[name][~mask].any() for name, mask in masks.items())
    assert all(not parameters[name][~mask].any() for name, mask in masks.items())
    assert not torch.equal(parameters["0.weight"][masks["0.weight"]], before[masks["0.weight"]])


def test_outside_the_block_nothing_is_masked_even_after_an_error() -> None:
    model = mlp()
    masks = masks_of(model)
    with pytest.raises(KeyError), masked_training(model, masks):
        raise KeyError
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert dict(model.named_parameters())["0.weight"][~masks["0.weight"]].any()


def test_recover_runs_the_users_function_reproducibly() -> None:
    def fit(
        model: nn.Module, inputs: Any, targets: Any, *, epochs: int, seed: int, progress: Any, lr: float
    ) -> str:
        assert model.training
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        x, y = torch.from_numpy(inputs["x"]), torch.from_numpy(targets)
        for _ in progress(range(epochs)):
            order = torch.randperm(len(x))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[order]), y[order]).backward()
            optimizer.step()
        return f"trained from {seed}"

    rng = np.random.default_rng(0)
    inputs, targets = {"x": rng.standard_normal((64, 20)).astype(np.float32)}, rng.integers(0, 4, 64)
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        model = mlp()
        masks = masks_of(model)
        told = fit_in_place(
            model, fit, inputs, targets, masks=masks, epochs=3, seed=7, progress=iter, lr=0.01
        )
        assert told == "trained from 7"
        assert not model.training
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not states[0]["0.weight"][~masks["0.weight"]].any()


def test_training_that_diverges_or_trains_another_model_is_refused() -> None:
    def explode(model: nn.Module, *_: Any, **__: Any) -> None:
        with torch.no_grad():
            next(iter(model.parameters())).fill_(float("nan"))

    with pytest.raises(InputError, match=r"0\.weight after training.*NaN"):
        fit_in_place(mlp(), explode, {}, None, masks={}, epochs=1, seed=0)
    with pytest.raises(InputError, match="another model"):
        fit_in_place(mlp(), lambda *_, **__: mlp(), {}, None, masks={}, epochs=1, seed=0)
    with pytest.raises(InputError, match="epochs"):
        fit_in_place(mlp(), explode, {}, None, masks={}, epochs=0, seed=0)
