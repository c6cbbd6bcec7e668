"""A smaller model learns from a larger one; a pruned one from what it was; a killed training goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.engine.steps.verify import verify

FACTORY = {"path": "toy_model:build", "options": {"width": 64}}
FIT = {"path": "toy_model:fit"}
DATA = {"loader": {"path": "toy_data:load"}, "fingerprint": {"path": "toy_data:fingerprint"}}
STUDENT = {"path": "toy_student:build", "options": {"width": 16}}
MODULES = ("toy_model", "toy_data", "toy_student")


class Flow:
    def __init__(self, store):
        self.store, self.made = store, {}

    def request(self, step, spec, inputs, result=None):
        return StepRequest(
            step, spec, {role: self.made[name] for role, name in inputs.items()}, self.store, result=result
        )

    def run(self, name, step, spec, **inputs):
        result = run_request(self.request(step, spec, inputs))
        self.made[name] = result.artifact
        return result

    def train(self):
        spec = {"name": "toy", "factory": FACTORY, "fit": FIT, "data": DATA, "epochs": 60}
        return ok(self.run("train", "train", spec))

    def distil(self, name="student", student=STUDENT, **changes):
        spec = {"student": student, "data": DATA, "epochs": 60, "learning_rate": 0.01, **changes}
        return self.run(name, "distill", spec, model="train")


@pytest.fixture
def flow(tmp_path, user_code):
    return Flow(f"file://{tmp_path}/store")


def ok(result):
    assert result.status == "succeeded", result.error
    return result


def test_a_student_learns_without_targets_and_is_a_model_of_its_own(flow, user_code, forget_modules):
    trained = flow.train()
    (user_code / "toy_data.py").write_text(
        (user_code / "toy_data.py").read_text() + "\n\ndef unlabelled(split):\n"
        "    inputs, labels = load(split)\n    return inputs, None if split == 'train' else labels\n"
    )
    forget_modules(MODULES)
    data = {"loader": {"path": "toy_data:unlabelled"}, "version": "1"}
    result = ok(flow.distil(data=data))
    metrics = result.metrics
    assert metrics["quality"] > 0.95
    assert metrics["teacher_quality"] == trained.metrics["quality"]
    assert metrics["parameters"] < metrics["teacher_parameters"] / 10
    assert metrics["teacher_parameters"] == trained.metrics["parameters"]
    assert metrics["agreement"] > 0.95
    assert result.parent == trained.artifact.digest
    assert "resumed_at_epoch" not in result.details
    assert result.details["last_loss"] < result.details["first_loss"] / 2
    # The student carries its own factory's code: a step that names none can load it.
    forget_modules(MODULES)
    for name in MODULES:
        (user_code / f"{name}.py").unlink()
    exported = ok(flow.run("exported", "export", {}, model="student"))
    assert {a["step"] for a in verify(exported.artifact.uri)["artifacts"]} >= {"train", "distill", "export"}


def test_the_same_distillation_is_found_and_made_anew_it_has_the_same_digest(flow, tmp_path):
    flow.train()
    spec = {
        "epochs": 3, "loss": {"path": "toy_student:loss"},
        "distillation": {"kind": "logits", "temperature": 4, "alpha": 0.7, "hidden": {"layers.1": "layers.1"}},
    }  # fmt: skip
    first = ok(flow.distil(**spec))
    assert ok(flow.distil(**spec)).cached
    for path in (tmp_path / "store" / "cache" / "distill").iterdir():
        path.unlink()
    again = ok(flow.distil(**spec))
    assert not again.cached
    assert again.artifact == first.artifact
    other = ok(flow.distil(**{**spec, "distillation": {**spec["distillation"], "alpha": 0.6}}))
    assert other.artifact != first.artifact
    assert not list((tmp_path / "store" / "checkpoints").rglob("*.safetensors"))


def test_a_student_goes_on_learning_from_another_teaching(flow):
    flow.train()
    first = ok(flow.distil(epochs=2))
    spec = {"data": DATA, "epochs": 30, "learning_rate": 0.01, "distillation": {"kind": "cosine"}}
    second = ok(flow.run("second", "distill", spec, model="train", student="student"))
    assert second.metrics["cosine_to_teacher"] > 0.9
    assert second.metrics["parameters"] == first.metrics["parameters"]
    refused = flow.run("x", "distill", {**spec, "student": FACTORY}, model="train", student="student")
    assert "another factory; found: toy_student:build" in refused.error["message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"path": "toy_student:wide"}}, "forward can't be called|student's outputs are not"),
        ({"student": {"path": "toy_student:renamed"}}, "Renamed.forward can't be called.*points"),
        ({"student": None}, "there is no student"),
        ({"data": None}, "toy can't be distilled; found: no data"),
        ({"distillation": {"kind": "none"}}, "wanted: logits, cosine or hidden"),
        ({"distillation": {"kind": "hidden"}}, "no pair of modules"),
        (
            {"distillation": {"kind": "logits", "hidden": {"layer.1": "layers.1"}}},
            r"student Toy doesn't have; found: layer\.1; wanted: one of layers\.1,",
        ),
        ({"distillation": {"alpha": 0}}, "distillation.alpha"),
        ({"distillation": {"kind": "logits", "alpha": 0.5}}, "no loss of them"),
        ({"loss": "cross"}, "wanted: one of cross_entropy, mse, l1, cosine"),
        ({"learning_rate": 9.0, "loss": {"path": "toy_student:diverging"}}, "loss in epoch 1 of 2"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_published(flow, user_code, changes, message):
    with (user_code / "toy_student.py").open("a") as stream:
        stream.write("\n\ndef diverging(outputs, targets):\n    return outputs.sum() / 0\n")
    flow.train()
    result = flow.distil(**{"epochs": 2, **changes})
    assert result.status == "failed"
    assert result.error["permanent"] is True
    assert re.search(message, result.error["message"]), result.error["message"]
    assert result.artifact is None


def test_a_teacher_that_is_a_graph_is_refused(flow):
    flow.train()
    flow.made["train"] = ok(flow.run("onnx", "export", {}, model="train")).artifact
    assert "the teacher toy can't be used" in flow.distil().error["message"]


@pytest.mark.parametrize(
    ("way", "changes"),
    [
        ("distillation", {"distillation": {"kind": "logits", "temperature": 3}}),
        ("distillation", {"distillation": {"kind": "cosine", "alpha": 0.5}, "loss": "cross_entropy"}),
        ("loss", {"loss": "cross_entropy"}),
        ("loss", {"loss": {"path": "toy_student:loss"}}),
        ("fit", {"fit": FIT, "loss": "cross_entropy"}),
        (None, {}),
    ],
)
@pytest.mark.parametrize("method", ["magnitude-ratio", "channels"])
def test_a_pruned_model_recovers_in_each_way_and_keeps_its_zeros(flow, way, changes, method):
    flow.train()
    spec = {
        "method": method, "ratio": 0.875 if method == "channels" else 0.75, "data": DATA,
        "recovery_epochs": 20, "recovery_learning_rate": 0.01, **changes,
    }  # fmt: skip
    result = ok(flow.run("pruned", "prune", spec, model="train"))
    assert result.details["recovery"] == way
    assert result.details["recovery_epochs"] == (20 if way else 0)
    if method == "magnitude-ratio":
        assert result.metrics["zero_fraction"] == pytest.approx(0.75, abs=1e-3)
    before, after = result.details["quality_before_recovery"], result.metrics["quality"]
    assert (after == before) if way is None else (after > max(before, 0.8)), (before, after)


# -- killed in the middle -------------------------------------------------------------------------------------


def killed(request, tmp_path, waiting):
    """Run it as a process of its own, and kill that as soon as it waits in the middle of its work."""
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request.to_json()))
    command = [sys.executable, "-m", "airflow_model_deploy.engine.cli", "run", request.step]
    with subprocess.Popen(
        [*command, "--request", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while not (waiting / "30").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


SPECS = {
    "distill": {
        "student": STUDENT, "data": DATA, "epochs": 9, "batch_size": 64,
        "distillation": {"kind": "logits", "hidden": {"layers.1": "layers.1"}},
    },
    "prune": {"method": "magnitude-ratio", "ratio": 0.5, "recovery_epochs": 9, "data": DATA},
    "train": {"name": "toy", "factory": FACTORY, "data": DATA, "epochs": 50},
}  # fmt: skip


@pytest.mark.parametrize("step", SPECS)
def test_a_retry_of_a_killed_training_goes_on_from_its_checkpoint(step, flow, tmp_path):
    flow.train()
    waiting = tmp_path / "waiting"
    pausing = {"options": {"pause": str(waiting)}}
    own = {"fit": {"path": "toy_student:fit", **pausing}} if step == "train" else {
        "loss": {"path": "toy_student:loss", **pausing}
    }  # fmt: skip
    inputs = {} if step == "train" else {"model": "train"}
    spec = {**SPECS[step], **own}
    undisturbed = ok(run_request(flow.request(step, spec, inputs)))  # nobody waits: the folder isn't there
    flow.store = f"file://{tmp_path}/other"
    flow.made["train"] = None
    flow.train()

    waiting.mkdir()
    killed(flow.request(step, spec, inputs), tmp_path, waiting)
    kept = list((tmp_path / "other" / "checkpoints").rglob("*.safetensors"))
    assert len(kept) == 1
    assert kept[0].parent.parent.name == step
    other = tmp_path / "other" / "checkpoints" / step / "0123" / "state.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"another key's")

    result = ok(run_request(flow.request(step, spec, inputs)))
    assert result.artifact.digest == undisturbed.artifact.digest
    assert result.metrics == undisturbed.metrics
    again = len(list(waiting.iterdir())) - 31
    if step == "train":
        assert result.details["resumed"] is True
        assert again < 45
    else:
        assert 1 <= result.details["resumed_at_epoch"] <= 4
        assert again == 7 * (9 - result.details["resumed_at_epoch"])
    assert not kept[0].exists()
    assert other.read_bytes() == b"another key's"


def test_a_broken_checkpoint_costs_the_time_and_nothing_else(flow, tmp_path, user_code, caplog):
    flow.train()
    spec = {**SPECS["distill"], "loss": "cross_entropy"}
    first = ok(run_request(flow.request("distill", spec, {"model": "train"})))
    for path in (tmp_path / "store" / "cache" / "distill").iterdir():
        path.unlink()
    place = tmp_path / "store" / "checkpoints" / "distill" / first.key.removeprefix("sha256:")
    place.mkdir(parents=True)
    (place / "state.safetensors").write_bytes(b"\x10" * 100)
    again = ok(run_request(flow.request("distill", spec, {"model": "train"})))
    assert again.artifact == first.artifact
    assert "resumed_at_epoch" not in again.details
    assert "starting over" in caplog.text
    assert not place.exists()


def test_a_checkpoint_left_after_the_publication_goes_with_the_next_hit(flow, tmp_path):
    flow.train()
    first = ok(flow.distil(epochs=2))
    place = tmp_path / "store" / "checkpoints" / "distill" / first.key.removeprefix("sha256:")
    place.mkdir(parents=True)
    (place / "state.safetensors").write_bytes(b"left")
    assert ok(flow.distil(epochs=2)).cached
    assert not place.exists()


def test_data_without_a_fingerprint_keeps_no_checkpoint(flow, tmp_path):
    flow.train()
    ok(flow.distil(epochs=2, data={"loader": DATA["loader"]}))
    assert not list(Path(tmp_path / "store").glob("checkpoints/**/*.safetensors"))
    assert Store(flow.store).has(flow.made["student"])
