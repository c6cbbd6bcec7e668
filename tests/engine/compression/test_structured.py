from __future__ import annotations

import copy
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from airflow_model_deploy.engine.compression import model_cost, prune_channels
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Surgery, save_torch_model
from tests.engine.compression.nets import build

if TYPE_CHECKING:
    from pathlib import Path

RELOAD = """
import importlib, sys, numpy as np, torch
from airflow_model_deploy.engine.models import load_torch_model
folder, example, result = sys.argv[1:]
resolve = lambda path: getattr(importlib.import_module(path.partition(":")[0]), path.partition(":")[2])
model = load_torch_model(folder, resolve)
with torch.no_grad():
    np.save(result, model(torch.from_numpy(np.load(example))).numpy())
"""


def pruned(name: str, **options: object) -> tuple[nn.Module, nn.Module, torch.Tensor, Surgery]:
    model, example = build(name)
    surgery = prune_channels(model, (example,), **{"ratio": 0.5, **options})  # type: ignore[arg-type]
    return model, surgery.apply(copy.deepcopy(model)), example, surgery


@pytest.mark.parametrize("name", ["PlainCNN", "ResidualCNN", "mlp"])
def test_half_the_channels_go_and_another_process_loads_the_same_model(name: str, tmp_path: Path) -> None:
    model, small, example, surgery = pruned(name)
    before, after = model_cost(model, (example,)), model_cost(small, (example,))
    assert after.parameters < 0.6 * before.parameters
    assert after.multiplications < 0.6 * before.multiplications
    save_torch_model(
        small,
        tmp_path / "model",
        factory=f"tests.engine.compression.nets:{name}",
        options={},
        surgery=surgery,
    )
    np.save(tmp_path / "x.npy", example.numpy())
    code = [
        sys.executable,
        "-c",
        RELOAD,
        str(tmp_path / "model"),
        str(tmp_path / "x.npy"),
        str(tmp_path / "y.npy"),
    ]
    subprocess.run(
        code, check=True, env={"PYTHONPATH": ":".join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    )
    torch.set_num_threads(1)
    with torch.no_grad():
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), small(example).numpy())


def test_the_cut_model_is_the_original_with_those_channels_disconnected() -> None:
    model, small, example, surgery = pruned("ResidualCNN")
    modules = dict(model.named_modules())
    with torch.no_grad():
        for cut in surgery.cuts:
            module = modules[cut.module]
            if cut.dimension == "in" and getattr(module, "groups", 1) == 1:
                gone = sorted(set(range(module.weight.shape[1])) - set(cut.kept))
                module.weight[:, gone] = 0
        # The grouped convolution reads `pointwise`; silence those channels at their source instead.
        kept = next(c.kept for c in surgery.cuts if (c.module, c.dimension) == ("pointwise", "out"))
        gone = sorted(set(range(32)) - set(kept))
        modules["pointwise"].weight[gone] = 0
        modules["pointwise"].bias[gone] = 0
        torch.testing.assert_close(small(example), model(example), rtol=1e-4, atol=1e-5)


def test_the_weakest_channels_go() -> None:
    model, example = build("PlainCNN")
    with torch.no_grad():
        model.conv1.weight[[1, 4, 5, 9, 10, 12, 14, 15]] *= 1e-3
        model.conv2.weight[:, [1, 4, 5, 9, 10, 12, 14, 15]] *= 1e-3
    for norm in ("l1", "l2"):
        surgery = prune_channels(model, (example,), ratio=0.5, criterion=norm, exclude=["conv2"])
        kept = {c.module: c.kept for c in surgery.cuts}
        assert kept["conv1"] == kept["conv2"] == (0, 2, 3, 6, 7, 8, 11, 13)
        assert "head" not in kept


def test_flattened_channels_take_all_their_features_along() -> None:
    _, small, _, surgery = pruned("PlainCNN")
    conv = next(c.kept for c in surgery.cuts if (c.module, c.dimension) == ("conv2", "out"))
    head = next(c.kept for c in surgery.cuts if c.module == "head")
    assert head == tuple(16 * c + i for c in conv for i in range(16))
    assert small.head.in_features == len(head)


@pytest.mark.parametrize(
    ("ratio", "round_to", "kept"), [(0.5, 8, 8), (0.3, 4, 12), (0.9, 8, 8), (0.3, 1, 11)]
)
def test_kept_channels_are_the_nearest_multiple(ratio: float, round_to: int, kept: int) -> None:
    _, small, _, _ = pruned("PlainCNN", ratio=ratio, round_to=round_to)
    assert small.conv1.out_channels == kept


def test_outputs_and_attention_heads_stay_whole() -> None:
    _, small, example, surgery = pruned("Attention")
    assert {c.module for c in surgery.cuts} == {"up", "down"}
    assert small(example).shape == (2, 3)


def test_pruning_twice_composes() -> None:
    model, small, example, first = pruned("PlainCNN", round_to=4)
    second = prune_channels(small, (example,), ratio=0.5, round_to=4)
    both = first.then(second)
    twice = second.apply(copy.deepcopy(small))
    once = Surgery.from_json(both.to_json()).apply(copy.deepcopy(model))
    assert all(
        torch.equal(a, b)
        for a, b in zip(twice.state_dict().values(), once.state_dict().values(), strict=True)
    )


def test_the_given_model_is_left_alone() -> None:
    model, example = build("ResidualCNN")
    before = copy.deepcopy(model.state_dict())
    prune_channels(model, (example,), ratio=0.5)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ratio": 0.0}, "between 0 and 1"),
        ({"round_to": 0}, "at least 1"),
        ({"criterion": "hessian"}, "l1, l2 or taylor"),
        ({"criterion": "taylor"}, "no gradients"),
        ({"round_to": 64}, "nothing to cut"),
        ({"exclude": ["conv1", "conv2"]}, "nothing to cut"),
        ({"exclude": ["convx*"]}, "no match"),
    ],
)
def test_what_cannot_be_pruned_is_refused(options: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        pruned("PlainCNN", **options)


def test_inputs_that_forward_refuses() -> None:
    model, _ = build("PlainCNN")
    with pytest.raises(InputError, match="tracing PlainCNN"):
        prune_channels(model, (torch.randn(2, 3, 8, 8),), ratio=0.5)
