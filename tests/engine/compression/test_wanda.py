"""Sums of squares of what layers see, against unfolded inputs; Wanda's choice against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from airflow_model_deploy.engine.compression import (
    input_square_sums,
    prunable_weights,
    score_masks,
    wanda_scores,
    weight_layouts,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Dataset
from tests.engine.compression.nets import Stack


def sums_of(layer: nn.Module, x: np.ndarray, batch_size: int = 3) -> torch.Tensor:
    model = nn.Sequential(layer)
    return input_square_sums(
        model, prunable_weights(model), Dataset({"input": x}, None), batch_size=batch_size
    )["0.weight"]


def by_gradient(layer: nn.Module, x: np.ndarray) -> torch.Tensor:
    """The gradient of the sum of a layer's outputs by its weights, fed with squares, is their sum of squares."""
    twin = torch.nn.utils.skip_init(type(layer), **_arguments(layer)).double()
    twin(torch.from_numpy(x).double() ** 2).sum().backward()
    return twin.weight.grad


def _arguments(layer: nn.Module) -> dict[str, object]:
    names = (
        ("in_features", "out_features")
        if isinstance(layer, nn.Linear)
        else (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        )
    )
    return {**{name: getattr(layer, name) for name in names}, "bias": False}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (7, 5)),
        (nn.Linear(5, 3), (7, 4, 5)),
        (nn.Conv1d(4, 6, 3, padding=1), (7, 4, 9)),
        (nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2), (7, 4, 9, 8)),
        (nn.Conv2d(4, 4, 3, dilation=2, padding="same", groups=4), (7, 4, 9, 8)),
        (nn.Conv2d(4, 6, 4, padding="same", padding_mode="circular"), (7, 4, 9, 8)),
        (nn.Conv2d(4, 6, 3, padding="valid", stride=(3, 2)), (7, 4, 9, 8)),
        (nn.Conv3d(2, 3, 3, padding=1, stride=2), (7, 2, 5, 6, 7)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (7, 4, 5, 5)),
    ],
)  # fmt: skip
def test_every_weight_has_the_squares_that_it_was_multiplied_with(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sums = sums_of(layer, x)
    weights = {"0.weight": torch.ones_like(layer.weight)}
    norms = wanda_scores(weights, {"0.weight": sums}, weight_layouts(nn.Sequential(layer)))["0.weight"]
    want = by_gradient(layer, x)
    np.testing.assert_allclose(norms.numpy() ** 2, want.numpy(), rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(1, 9))
def test_wandas_rows_follow_the_formula(seed: int, dtype: torch.dtype, batch: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((9, 6)).astype(np.float32)
    x[:, 2] = 0  # what is never seen goes first
    layer = nn.Linear(6, 5).to(dtype)
    data = Dataset({"input": torch.from_numpy(x).to(dtype).float().numpy()}, None)
    model = nn.Sequential(_To(dtype), layer)
    weights = {"1.weight": layer.weight}
    sums = input_square_sums(model, weights, data, batch_size=batch)
    masks = score_masks(wanda_scores(weights, sums), rule="ratio", scope="row", ratio=0.5, weights=weights)
    seen = data.inputs["input"].astype(np.float64)
    scores = np.abs(layer.weight.detach().double().numpy()) * np.sqrt((seen**2).sum(0))
    for row, kept in zip(scores, masks["1.weight"].numpy(), strict=True):
        assert row[~kept].max() <= row[kept].min() + 1e-12
        assert (~kept).sum() == 3
        assert not kept[2]


class _To(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.dtype)


class Padded(nn.Module):
    """A text model: what stands at padded places is noise."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.dense, self.pooled = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.dense(self.words(input_ids))
        return self.pooled(hidden[:, 0])


def test_padding_does_not_count() -> None:
    model = Padded()
    random = np.random.default_rng(0)
    ids, mask = random.integers(0, 20, (5, 7)), np.ones((5, 7), np.int64)
    mask[0, 3:], mask[3, 5:] = 0, 0
    weights = prunable_weights(model)
    found = input_square_sums(model, weights, Dataset({"input_ids": ids, "attention_mask": mask}, None))
    seen = model.words.weight.detach().double().numpy()[ids][mask == 1]
    np.testing.assert_allclose(found["dense.weight"][0], (seen**2).sum(0), rtol=1e-6)
    with torch.no_grad():
        first = model.dense(model.words(torch.from_numpy(ids[:, 0])))
    np.testing.assert_allclose(found["pooled.weight"][0], first.double().square().sum(0), rtol=1e-5)


def test_a_layer_used_twice_has_seen_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    model = Twice().double()
    x = np.random.default_rng(0).standard_normal((4, 3))
    found = input_square_sums(model, {"layer.weight": model.layer.weight}, Dataset({"x": x}, None))
    again = x @ model.layer.weight.detach().numpy().T
    np.testing.assert_allclose(found["layer.weight"][0], (x**2).sum(0) + (again**2).sum(0), rtol=1e-12)


def test_torchs_encoder_layers_are_seen_and_nothing_is_left_behind() -> None:
    model = Stack("torch")
    weights = prunable_weights(model, ["*linear*"])
    fast = torch.backends.mha.get_fastpath_enabled()
    data = Dataset({"x": np.ones((4, 5, 16), np.float32)}, None)
    found = input_square_sums(model.train(), weights, data)
    assert set(found) == set(weights)
    assert all(total.shape == (1, weights[name].shape[1]) for name, total in found.items())
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_layers_that_cannot_be_seen_into_are_named() -> None:
    model = Stack("torch", layers=1)
    data = Dataset({"x": np.ones((4, 5, 16), np.float32)}, None)
    with pytest.raises(InputError, match=r"layers\.0\.self_attn\.in_proj_weight.*Exclude"):
        input_square_sums(model, prunable_weights(model), data)


def test_inputs_that_are_not_finite_are_refused_by_name() -> None:
    x = np.ones((2, 5), np.float32)
    x[1, 3] = np.nan
    with pytest.raises(InputError, match=r"inputs of 0\.weight.*NaN"):
        sums_of(nn.Linear(5, 3), x)
