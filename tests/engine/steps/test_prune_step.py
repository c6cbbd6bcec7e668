"""The prune step with every method, on a small model of a user's own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.steps import StepRequest, run_request

FIT = {"path": "toy_model:fit"}
DATA = {"loader": {"path": "toy_data:load"}, "fingerprint": {"path": "toy_data:fingerprint"}}
WEIGHTS = [f"layers.{i}.weight" for i in (0, 2, 4)]
ELEMENTS = 64 * 2 + 64 * 64 + 2 * 64
BLOCKS = """
from torch import nn

class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 16)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 128, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(16, 2)

    def forward(self, points):
        hidden = self.first(points)[:, None]
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden[:, 0])

def build():
    return Blocks()
"""


class Pruning:
    """One trained model and runs of the step on it."""

    def __init__(self, store, factory="toy_model:build"):
        self.store = store
        spec = {"name": "toy", "factory": {"path": factory}, "fit": FIT, "data": DATA, "epochs": 30}
        self.trained = self.run("train", spec)

    def run(self, step, spec, model=None):
        inputs = {"model": model.artifact} if model else {}
        return run_request(StepRequest(step=step, spec=spec, inputs=inputs, store=self.store))

    def prune(self, model=None, **spec):
        return self.run("prune", spec, model or self.trained)

    def weights(self, result):
        from safetensors.numpy import load_file

        return load_file(Store(self.store).fetch(result.artifact)[0] / "weights.safetensors")


@pytest.fixture
def toy(tmp_path, user_code):
    return Pruning(f"file://{tmp_path}/store")


def _ok(result):
    assert result.status == "succeeded", result.error
    return result


def _zeros(weights):
    return {name: int((weights[name] == 0).sum()) for name in WEIGHTS}


@pytest.mark.parametrize(
    ("method", "options", "zeros"),
    [
        ("gradient-ratio", {"scope": "tensor"}, {0: 64, 2: 2048, 4: 64}),
        ("taylor-ratio", {"scope": "row"}, {0: 64, 2: 2048, 4: 64}),
        ("wanda-ratio", {}, {0: 64, 2: 2048, 4: 64}),
        ("wanda-ratio", {"scope": "2:4"}, {0: 0, 2: 2048, 4: 64}),
        ("magnitude-ratio", {"scope": "1:4"}, {0: 0, 2: 3072, 4: 96}),
        ("taylor-ratio", {}, None),
    ],
)
def test_each_method_removes_its_share_and_recovery_gives_none_of_it_back(toy, method, options, zeros):
    spec = {"method": method, "loss": "cross_entropy", "data": DATA, **options}
    bare = _ok(toy.prune(**spec))
    recovered = _ok(toy.prune(**spec, fit=FIT, recovery_epochs=60))
    for result in (bare, recovered):
        found = _zeros(toy.weights(result))
        assert result.metrics["zeros_after"] == sum(found.values())
        assert result.metrics["zeros_before"] == 0
        assert result.details["zeros"] == {
            name: {"elements": toy.weights(result)[name].size, "before": 0, "after": count}
            for name, count in found.items()
            if count
        }
        if zeros is None:
            assert sum(found.values()) == ELEMENTS // 2
        else:
            assert found == {f"layers.{place}.weight": count for place, count in zeros.items()}
    assert recovered.metrics["quality"] >= bare.metrics["quality"]
    assert recovered.metrics["quality"] > 0.88
    before, after = toy.weights(bare), toy.weights(recovered)
    assert all(np.array_equal(before[name] == 0, after[name] == 0) for name in WEIGHTS)


@pytest.mark.parametrize("reduction", ["sum_of_abs", "abs_of_sum"])
def test_the_mean_of_gradients_is_the_threshold(toy, reduction):
    """The reference takes the gradients itself, batch by batch, and counts in float64."""
    import torch
    import toy_data
    import toy_model

    spec = {"gradient_reduction": reduction, "score_batch_size": 50, "score_samples": 400, "data": DATA}
    result = _ok(toy.prune(method="gradient-mean", loss="cross_entropy", **spec))
    model = toy_model.build()
    trained = toy.weights(toy.trained)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in trained.items()})
    inputs, labels = toy_data.load("train")
    totals = dict.fromkeys(WEIGHTS, 0.0)
    for begin in range(0, 400, 50):
        model.zero_grad()
        part = slice(begin, begin + 50)
        logits = model(torch.from_numpy(inputs["points"][part]))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[part])).backward()
        for name in WEIGHTS:
            gradient = model.get_parameter(name).grad.double().numpy()
            totals[name] = totals[name] + (np.abs(gradient) if reduction == "sum_of_abs" else gradient)
    threshold = np.concatenate([np.abs(t).ravel() for t in totals.values()]).mean()
    pruned = toy.weights(result)
    for name, sums in totals.items():
        want = (np.abs(sums) >= threshold) & (trained[name] != 0)
        clear = np.abs(np.abs(sums) - threshold) > 1e-6 * threshold
        assert np.array_equal((pruned[name] != 0)[clear], want[clear])
    assert result.details["gradient_reduction"] == reduction


def test_a_later_pruning_keeps_earlier_zeros_and_so_does_its_recovery(toy):
    first = _ok(toy.prune(method="magnitude-ratio", ratio=0.5, data=DATA))
    spec = {"method": "gradient-ratio", "ratio": 0.3, "loss": "cross_entropy", "data": DATA}
    second = _ok(toy.prune(first, **spec, fit=FIT, recovery_epochs=5))
    assert second.metrics["zeros_before"] == second.metrics["zeros_after"] == first.metrics["zeros_after"]
    more = _ok(toy.prune(first, **{**spec, "ratio": 0.7}))
    assert more.metrics["zeros_after"] == int(0.7 * ELEMENTS)
    before, after = toy.weights(first), toy.weights(more)
    assert all((after[name][before[name] == 0] == 0).all() for name in WEIGHTS)
    cut = _ok(toy.prune(first, method="channels", data=DATA, fit=FIT, recovery_epochs=5))
    again = _ok(toy.prune(first, method="channels", data=DATA))
    assert cut.metrics["zeros_after"] == again.metrics["zeros_after"] > 0


@pytest.mark.parametrize("norm", ["l1", "l2", "taylor"])
def test_channels_by_every_norm(toy, norm):
    spec = {"norm": norm, "data": DATA, "loss": "cross_entropy", "fit": FIT, "recovery_epochs": 60}
    result = _ok(toy.prune(method="channels", ratio=0.75, **spec))
    assert result.metrics["parameters"] < result.metrics["parameters_before"] / 4
    assert result.metrics["quality"] > 0.85
    assert result.details["norm"] == norm


def test_feed_forward_neurons_go_and_later_steps_load_the_model(tmp_path, user_code):
    (user_code / "toy_blocks.py").write_text(BLOCKS)
    blocks = Pruning(f"file://{tmp_path}/store", "toy_blocks:build")
    result = _ok(blocks.prune(method="ffn", norm="taylor", loss="cross_entropy", data=DATA))
    folder, _ = Store(blocks.store).fetch(result.artifact)
    cuts = json.loads((folder / "surgery.json").read_text())["cuts"]
    assert {c["module"] for c in cuts} == {f"blocks.{i}.linear{k}" for i in (0, 1) for k in (1, 2)}
    assert {len(c["kept"]) for c in cuts} == {64}
    assert blocks.weights(result)["blocks.1.linear2.weight"].shape == (16, 64)
    again = _ok(blocks.prune(result, method="ffn", round_to=8, data=DATA))
    assert blocks.weights(again)["blocks.0.linear1.weight"].shape == (32, 16)
    exported = _ok(blocks.run("export", {}, again))
    source = f"{Store(blocks.store).fetch(exported.artifact)[0]}/model.onnx"
    taken = _ok(blocks.run("ingest", {"name": "toy", "data": DATA, "source": source}))
    assert taken.metrics["quality"] == again.metrics["quality"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"method": "gradient-mean", "data": DATA}, "gradient-mean can't tell what goes; found: no loss"),
        ({"method": "taylor-ratio", "loss": "mse"}, "taylor-ratio can't tell what goes; found: no data"),
        ({"method": "wanda-ratio"}, "wanda-ratio can't tell what goes; found: no data"),
        ({"method": "channels", "norm": "taylor", "data": DATA}, "channels with norm taylor .* no loss"),
        ({"method": "gradient-mean", "scope": "2:4", "data": DATA, "loss": "mse"}, "rule mean; found: 2:4"),
        ({"method": "magnitude-ratio", "scope": "4:2"}, "0 < N < M"),
        ({"method": "magnitude-ratio", "scope": "layer"}, "scope = 'layer'"),
        ({"method": "gradient-mean", "data": DATA, "loss": "hinge"}, "loss; found: hinge"),
        ({"method": "ffn"}, "feed-forward blocks of Toy; found: none"),
        ({"method": "magnitude-ratio", "include": ["*nothing*"]}, "include pattern"),
    ],
)  # fmt: skip
def test_what_cannot_be_pruned_is_told(toy, spec, told):
    import re

    result = toy.prune(**spec)
    assert result.status == "failed"
    assert result.error["permanent"] is True
    assert re.search(told, result.error["message"]), result.error["message"]
    assert result.artifact is None


def test_a_users_own_loss_and_the_same_bytes_again(toy, user_code, tmp_path):
    (user_code / "toy_loss.py").write_text(
        "def weighted(outputs, targets, power=2):\n"
        "    import torch\n"
        "    wrong = 1 - torch.softmax(outputs, 1)[torch.arange(len(targets)), targets]\n"
        "    return (wrong**power).mean()\n"
    )
    spec = {
        "method": "taylor-mean",
        "loss": {"path": "toy_loss:weighted", "options": {"power": 3}},
        "data": DATA,
    }
    first = _ok(toy.prune(**spec))
    assert 0.3 < first.metrics["zero_fraction"] < 0.95
    for path in (tmp_path / "store" / "cache").rglob("*.json"):
        path.unlink()
    again = _ok(toy.prune(**spec))
    assert not again.cached
    assert again.artifact == first.artifact
