from __future__ import annotations

import pytest
import torch
from torch import nn

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Cut, Surgery


def cut(layer: nn.Module, dimension: str, *kept: int) -> nn.Module:
    return Surgery((Cut("0", dimension, kept),)).apply(nn.Sequential(layer))[0]  # type: ignore[arg-type,index,no-any-return]


@pytest.mark.parametrize("dims", [1, 2])
def test_convolution(dims: int) -> None:
    make = (nn.Conv1d, nn.Conv2d)[dims - 1]
    layer = make(4, 6, 3, padding=1)
    x = torch.randn(2, 4, *[5] * dims)
    want = layer(x)[:, [1, 4]]
    small = cut(layer, "out", 1, 4)
    assert (small.out_channels, small.in_channels) == (2, 4)
    torch.testing.assert_close(small(x), want)
    x[:, [0, 2]] = 0
    want = small(x)
    torch.testing.assert_close(cut(small, "in", 1, 3)(x[:, [1, 3]]), want)


def test_depthwise_convolution_is_one_dimension() -> None:
    layer = nn.Conv2d(6, 6, 3, groups=6)
    x = torch.randn(2, 6, 5, 5)
    want = layer(x)[:, [0, 3, 5]]
    small = cut(layer, "out", 0, 3, 5)
    assert (small.in_channels, small.out_channels, small.groups) == (3, 3, 3)
    torch.testing.assert_close(small(x[:, [0, 3, 5]]), want)


def test_grouped_convolution_keeps_as_many_channels_in_each_group() -> None:
    layer = nn.Conv2d(8, 8, 3, groups=2)
    x = torch.randn(2, 8, 5, 5)
    gone = [i for i in range(8) if i not in (0, 2, 5, 7)]
    x[:, gone] = 0
    want = layer(x)[:, [1, 3, 4, 7]]
    small = Surgery((Cut("0", "out", (1, 3, 4, 7)), Cut("0", "in", (0, 2, 5, 7)))).apply(
        nn.Sequential(layer)
    )[0]
    assert (small.in_channels, small.out_channels, small.groups) == (4, 4, 2)
    torch.testing.assert_close(small(x[:, [0, 2, 5, 7]]), want)
    with pytest.raises(InputError, match="as many in each of 2 groups"):
        cut(nn.Conv2d(8, 8, 3, groups=2), "out", 0, 1, 2, 4)


def test_linear_and_norms() -> None:
    linear, x = nn.Linear(5, 4), torch.randn(3, 5)
    want = linear(x)[:, [0, 2]]
    small = cut(linear, "out", 0, 2)
    assert (small.in_features, small.out_features) == (5, 2)
    torch.testing.assert_close(small(x), want)
    assert cut(nn.Linear(5, 4), "in", 1, 2, 3).weight.shape == (4, 3)
    norm = nn.BatchNorm2d(4)
    norm(torch.randn(8, 4, 2, 2) * 3 + 1)
    y = torch.randn(2, 4, 2, 2)
    want = norm.eval()(y)[:, [1, 3]]
    small = cut(norm, "out", 1, 3)
    assert small.num_features == 2
    torch.testing.assert_close(small(y[:, [1, 3]]), want)
    assert cut(nn.BatchNorm1d(4, affine=False), "out", 0).running_var.shape == (1,)
    assert cut(nn.LayerNorm(6), "out", 0, 1)(torch.randn(3, 2)).shape == (3, 2)
    assert cut(nn.LayerNorm(6, elementwise_affine=False), "out", 0, 1).normalized_shape == (2,)


def test_frozen_weights_stay_frozen_and_buffers_stay_buffers() -> None:
    layer = nn.Linear(4, 4).requires_grad_(False)
    assert not cut(layer, "out", 0).weight.requires_grad
    assert set(dict(cut(nn.BatchNorm1d(4), "out", 0).named_buffers())) == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip


def test_json_and_composition() -> None:
    first = Surgery((Cut("0", "out", (1, 3, 5)),))
    both = first.then(Surgery((Cut("0", "out", (0, 2)), Cut("1", "in", (0,)))))
    assert both.cuts == (Cut("0", "out", (1, 5)), Cut("1", "in", (0,)))
    assert Surgery.from_json(both.to_json()) == both
    with pytest.raises(InputError, match="index 3"):
        first.then(Surgery((Cut("0", "out", (3,)),)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Cut("a", "out", ()), "at least one"),
        (lambda: Cut("a", "out", (2, 1)), "strictly ascending"),
        (lambda: Cut("a", "sideways", (1,)), "out or in"),
        (lambda: cut(nn.Linear(2, 2), "out", 2), r"indices 2\.\.2; wanted: 0\.\.1"),
        (lambda: cut(nn.LSTM(2, 2), "out", 0), "found: LSTM"),
        (lambda: cut(nn.BatchNorm1d(2), "in", 0), "found: BatchNorm1d"),
        (lambda: Surgery((Cut("9", "out", (0,)),)).apply(nn.Sequential()), "no such module"),
        (lambda: Surgery.from_json({"schema_version": 2, "cuts": []}), "schema_version"),
        (lambda: Surgery.from_json({"schema_version": 1, "cuts": [{"module": "a"}]}), "dimension"),
    ],
)
def test_cuts_that_cannot_be(make: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        make()  # type: ignore[operator]
