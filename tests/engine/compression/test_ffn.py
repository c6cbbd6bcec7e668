"""Feed-forward neurons of transformer blocks of every naming, and channels by Taylor scores."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from airflow_model_deploy.engine.compression import (
    batch_gradients,
    feed_forward_blocks,
    prune_channels,
    prune_ffn,
    resolve_loss,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Dataset, Surgery, load_torch_model, save_torch_model
from tests.engine.compression.nets import Stack, build, mlp
from tests.engine.compression.test_structured import RELOAD

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("bert", "llama", "gpt", "fc1", "torch")
READERS = {"bert": "output.dense", "llama": "down_proj", "gpt": "c_proj", "fc1": "fc2", "torch": "linear2"}


def stack(kind: str, **options: int) -> tuple[Stack, torch.Tensor]:
    torch.manual_seed(0)
    return Stack(kind, **options).eval(), torch.randn(2, 5, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_each_block_keeps_as_many_and_the_model_is_the_one_without_those_neurons(kind: str) -> None:
    model, example = stack(kind)
    surgery = prune_ffn(model, (example,), ratio=0.5, round_to=8)
    small = surgery.apply(copy.deepcopy(model))
    assert len(surgery.cuts) == (6 if kind == "llama" else 4)
    assert {len(cut.kept) for cut in surgery.cuts} == {64}
    muted = copy.deepcopy(model)
    modules = dict(muted.named_modules())
    for cut in surgery.cuts:
        if cut.dimension == "in":
            assert cut.module.endswith(READERS[kind])
            gone = sorted(set(range(128)) - set(cut.kept))
            with torch.no_grad():
                weight = modules[cut.module].weight
                (weight if kind == "gpt" else weight.T)[gone] = 0
    with torch.no_grad():
        torch.testing.assert_close(small(example), muted(example), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", ["llama", "gpt", "torch"])
def test_another_process_loads_the_pruned_model(kind: str, tmp_path: Path) -> None:
    model, example = stack(kind)
    surgery = prune_ffn(model, (example,), ratio=0.5)
    small = surgery.apply(model)
    factory, options = "tests.engine.compression.nets:Stack", {"kind": kind}
    save_torch_model(small, tmp_path / "model", factory=factory, options=options, surgery=surgery)
    _same_elsewhere(tmp_path, example, small)


def _same_elsewhere(folder: Path, example: torch.Tensor, small: nn.Module) -> None:
    np.save(folder / "x.npy", example.numpy())
    names = [str(folder / name) for name in ("model", "x.npy", "y.npy")]
    environment = {"PYTHONPATH": ":".join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", RELOAD, *names], check=True, env=environment)
    with torch.no_grad():
        np.testing.assert_array_equal(np.load(folder / "y.npy"), small(example).numpy())


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_the_weakest_neurons_go_by_all_their_weights(criterion: str) -> None:
    model, example = stack("llama", layers=1)
    block = model.layers[0]
    power = 1 if criterion == "l1" else 2
    parts = [block.gate_proj.weight, block.up_proj.weight, block.down_proj.weight.T]
    scores = sum((part.detach().double().abs() ** power).sum(1) for part in parts).numpy()
    surgery = prune_ffn(model, (example,), ratio=0.25, round_to=32, criterion=criterion)
    assert surgery.cuts[0].kept == tuple(sorted(np.argsort(scores)[32:]))


def data_of(example: torch.Tensor, classes: int = 3, samples: int = 12) -> Dataset:
    random = np.random.default_rng(1)
    x = random.standard_normal((samples, *example.shape[1:])).astype(np.float32)
    return Dataset({"x": x}, random.integers(0, classes, samples))


def test_taylor_scores_are_squared_changes_of_the_loss_batch_by_batch() -> None:
    """By hand: for each batch, the sum of weight times gradient over a neuron, squared; then summed."""
    model, example = stack("fc1", layers=1, inner=32)
    data, loss = data_of(example), resolve_loss("cross_entropy", None)
    gradients = batch_gradients(model, dict(model.named_parameters()), data, loss, batch_size=5)
    surgery = prune_ffn(model, (example,), ratio=0.5, round_to=8, criterion="taylor", gradients=gradients)
    block, want = model.layers[0], np.zeros(32)
    for begin in range(0, 12, 5):
        model.zero_grad()
        part = slice(begin, begin + 5)
        logits = model(torch.from_numpy(data.inputs["x"][part]))
        nn.functional.cross_entropy(logits, torch.from_numpy(data.targets[part])).backward()
        products = {n: (p * p.grad).detach().double() for n, p in block.named_parameters()}
        change = products["fc1.weight"].sum(1) + products["fc1.bias"] + products["fc2.weight"].sum(0)
        want += change.numpy() ** 2
    assert surgery.cuts[0].kept == tuple(sorted(np.argsort(want, kind="stable")[16:]))


def test_taylor_keeps_the_channels_that_the_loss_depends_on() -> None:
    """Large weights that nobody reads are kept by l2 and go by Taylor; residual sums are cut together."""
    model, example = build("ResidualCNN")
    idle = [1, 3, 4, 7, 8, 11, 13, 14]
    with torch.no_grad():
        for conv in (model.stem, model.conv2):
            conv.weight[idle] *= 50
        for norm in (model.norm, model.norm2):
            norm.weight[idle] = 0
            norm.bias[idle] = -1
        model.depthwise.bias[idle] = -1
    data, loss = data_of(example, classes=10), resolve_loss("cross_entropy", None)
    gradients = batch_gradients(model, dict(model.named_parameters()), data, loss, batch_size=4)
    by_taylor = prune_channels(model, (example,), ratio=0.5, criterion="taylor", gradients=gradients)
    by_norm = prune_channels(model, (example,), ratio=0.5)
    kept = {(c.module, c.dimension): c.kept for c in by_taylor.cuts}
    useful = tuple(i for i in range(16) if i not in idle)
    assert kept["stem", "out"] == kept["conv2", "out"] == kept["norm", "out"] == useful
    assert set({(c.module, c.dimension): c.kept for c in by_norm.cuts}["stem", "out"]) != set(useful)
    small = by_taylor.apply(copy.deepcopy(model))
    with torch.no_grad():
        assert small(example).shape == model(example).shape


@pytest.mark.parametrize(("ratio", "round_to", "kept"), [(0.5, 64, 64), (0.3, 8, 88), (0.9, 64, 64)])
def test_kept_neurons_are_the_nearest_multiple(ratio: float, round_to: int, kept: int) -> None:
    model, example = stack("bert")
    cuts = prune_ffn(model, (example,), ratio=ratio, round_to=round_to).cuts
    assert {len(cut.kept) for cut in cuts} == {kept}


def test_cutting_twice_composes() -> None:
    model, example = stack("torch")
    first = prune_ffn(model, (example,), ratio=0.5, round_to=8)
    small = first.apply(copy.deepcopy(model))
    second = prune_ffn(small, (example,), ratio=0.5, round_to=8)
    both = Surgery.from_json(first.then(second).to_json()).apply(copy.deepcopy(model))
    want = second.apply(small).state_dict()
    assert all(torch.equal(want[name], value) for name, value in both.state_dict().items())


def test_excluded_blocks_stay_whole() -> None:
    model, example = stack("bert")
    cuts = prune_ffn(model, (example,), ratio=0.5, exclude=["layers.0.*"]).cuts
    assert {cut.module for cut in cuts} == {"layers.1.intermediate.dense", "layers.1.output.dense"}


class Odd(nn.Module):
    """Looks like a feed-forward block, but its neurons are used elsewhere too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.side = nn.Linear(16, 128), nn.Linear(128, 16), nn.Linear(128, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        neurons = torch.relu(self.fc1(x))
        return self.fc2(neurons) + self.side(neurons)


def test_models_without_such_blocks_say_what_was_looked_for() -> None:
    with pytest.raises(InputError, match=r"found: none; wanted: .*gate_proj and up_proj -> down_proj"):
        prune_ffn(mlp(), (torch.randn(2, 20),), ratio=0.5)
    uneven = nn.Sequential(Stack("fc1", inner=64).layers[0], Stack("fc1", inner=128).layers[0])
    with pytest.raises(InputError, match=r"64 neurons \(0\.fc1\), 128 neurons \(1\.fc1\)"):
        feed_forward_blocks(uneven)
    with pytest.raises(InputError, match="all excluded"):
        feed_forward_blocks(uneven, ["*fc1"])
    with pytest.raises(InputError, match="only the block's last layer reads"):
        prune_ffn(Odd(), (torch.randn(2, 16),), ratio=0.5)
    with pytest.raises(InputError, match="128 would stay at ratio"):
        prune_ffn(stack("fc1")[0], (torch.randn(2, 5, 16),), ratio=0.2)
    classifier = nn.ModuleDict({"fc1": nn.Linear(40, 20), "fc2": nn.Linear(20, 10)})
    with pytest.raises(InputError, match="found: none"):
        feed_forward_blocks(classifier)


def test_blocks_with_shared_weights_are_left_out() -> None:
    model, _ = stack("fc1", layers=3)
    model.layers[1].fc1.weight = model.layers[2].fc1.weight
    assert [block.reader for block in feed_forward_blocks(model)] == ["layers.0.fc2"]


def test_a_bert_of_transformers_is_cut_and_loads_elsewhere(tmp_path: Path) -> None:
    small, example = _cut_transformer("build_bert", tmp_path)
    _same_elsewhere(tmp_path, example, small)


def test_a_gpt_of_transformers_is_cut_and_loads(tmp_path: Path) -> None:
    small, example = _cut_transformer("build_gpt", tmp_path)
    from tests.engine.compression import hf_nets

    again = load_torch_model(tmp_path / "model", lambda path: getattr(hf_nets, path.partition(":")[2]))
    with torch.no_grad():
        assert torch.equal(again(example), small(example))


def _cut_transformer(factory: str, folder: Path) -> tuple[nn.Module, torch.Tensor]:
    pytest.importorskip("transformers")
    from tests.engine.compression import hf_nets

    torch.manual_seed(0)
    model = getattr(hf_nets, factory)().eval()
    example = torch.arange(10).reshape(2, 5)
    surgery = prune_ffn(model, {"input_ids": example}, ratio=0.5)
    assert len(surgery.cuts) == 4
    assert {len(cut.kept) for cut in surgery.cuts} == {64}
    small = surgery.apply(model)
    path = f"tests.engine.compression.hf_nets:{factory}"
    save_torch_model(small, folder / "model", factory=path, options={}, surgery=surgery)
    return small, example
