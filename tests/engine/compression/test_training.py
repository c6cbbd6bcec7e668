"""Our own training loop: it learns, keeps masks, repeats itself, and goes on where it was killed."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from airflow_model_deploy.engine.artifacts import Checkpoint, Store
from airflow_model_deploy.engine.compression import (
    Distillation,
    Schedule,
    Teaching,
    apply_masks,
    fit_in_place,
    train_in_place,
)
from airflow_model_deploy.engine.compression import training as module
from airflow_model_deploy.engine.compression.losses import cross_entropy
from airflow_model_deploy.engine.errors import InputError
from tests.engine.compression.nets import Attention, PlainCNN, mlp

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((129, 20)).astype(np.float32)  # one more than two batches of 64
Y = (X @ RANDOM.standard_normal((20, 4))).argmax(1)


class StoppedError(Exception):
    """What a kill is to a test."""


def net(seed=0, width=32):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(20, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 4)
    )


def supervised(model, stop_after=None, calls=None):
    calls = [] if calls is None else calls

    def objective(batch):
        if stop_after is not None and len(calls) == stop_after:
            raise StoppedError
        calls.append(tuple(batch.rows.tolist()))
        return cross_entropy(model(batch.inputs["x"]), batch.targets)

    return objective


def trained(model, epochs=4, objective=None, **changes):
    schedule = Schedule(epochs=epochs, learning_rate=1e-2, seed=3)
    return train_in_place(model, objective or supervised(model), {"x": X}, Y, schedule, **changes)


def equal(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("total", [4, 5, 7, 10, 64, 1000])
def test_the_learning_rate_is_that_of_torchs_one_cycle(total):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=total, cycle_momentum=False)
    for step in range(total):
        assert module.learning_rate_factor(step, total) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-12
        )
        optimizer.step()
        if step + 1 < total:
            schedule.step()
    assert module.learning_rate_factor(0, 1) == 1  # a single step learns at the full rate


def test_it_learns_and_repeats_itself_bit_by_bit():
    one, other = net(), net()
    done = trained(one, epochs=30)
    torch.manual_seed(99)  # whatever the process did before
    assert trained(other, epochs=30) == done
    assert equal(one, other)
    assert not one.training
    assert done.resumed_at_epoch is None
    assert done.losses[-1] < done.losses[0] / 2
    assert float((one(torch.from_numpy(X)).argmax(1).numpy() == Y).mean()) > 0.85


def test_every_epoch_sees_every_sample_once_in_another_order_but_a_single_one_left_over():
    calls = []
    model = net()
    trained(model, epochs=2, objective=supervised(model, calls=calls))
    first, second = (sum(calls[i : i + 2], ()) for i in (0, 2))
    assert len(calls) == 4
    assert len(set(first)) == len(set(second)) == 128
    assert first != second


def test_masked_weights_are_zero_after_every_step_and_decay_moves_none():
    model = mlp()
    masks = {"0.weight": torch.rand(64, 20) > 0.5, "3.weight": torch.rand(64, 64) > 0.5}
    weights = dict(model.named_parameters())

    def objective(batch):
        assert all(not weights[name][~mask].any() for name, mask in masks.items())
        return cross_entropy(model(batch.inputs["x"]), batch.targets)

    before = weights["0.weight"].detach().clone()
    trained(model, objective=objective, masks=masks)
    assert all(not weights[name][~mask].any() for name, mask in masks.items())
    assert not torch.equal(weights["0.weight"][masks["0.weight"]], before[masks["0.weight"]])


@pytest.mark.parametrize("killed_after", [1, 2, 3, 5, 7, 8])
@pytest.mark.parametrize("within_epochs", [False, True])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(
    killed_after, within_epochs, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_SAVES", -1.0 if within_epochs else 1e9)
    monkeypatch.setattr("airflow_model_deploy.engine.artifacts.checkpoints._PAUSE", 0.0)
    masks = {"0.weight": torch.rand(32, 20, generator=torch.Generator().manual_seed(0)) > 0.3}
    whole = net()
    undisturbed = trained(whole, masks=masks)

    store = Store(str(tmp_path / "store"))
    stopped = net()
    with suppress(StoppedError):  # after the eighth batch: between the last epoch and the publication
        trained(
            stopped,
            objective=supervised(stopped, killed_after),
            masks=masks,
            checkpoint=Checkpoint(store, "a/b"),
        )
    torch.manual_seed(5)
    again, calls = net(), []
    done = trained(
        again, objective=supervised(again, calls=calls), masks=masks, checkpoint=Checkpoint(store, "a/b")
    )
    assert equal(whole, again)
    assert done.losses == undisturbed.losses
    if not within_epochs and killed_after == 1:
        assert done.resumed_at_epoch is None
        assert len(calls) == 8
    else:
        assert done.resumed_at_epoch == killed_after // 2
        assert len(calls) == 8 - (killed_after if within_epochs else killed_after // 2 * 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("order"),
        lambda state: state.update(tensors={}),
        lambda state: state["optimizer"].update(param_groups=[]),
        lambda state: state["tensors"].update({"0.0.weight": torch.zeros(3)}),
        lambda state: state.update(losses=[0.1] * 99),
        lambda state: state.update(random={"python": 1}),
    ],
)
def test_a_checkpoint_of_another_training_is_passed_over(spoil, tmp_path, caplog):
    store = Store(str(tmp_path / "store"))
    first = net()
    with pytest.raises(StoppedError):
        trained(first, objective=supervised(first, 4), checkpoint=Checkpoint(store, "a/b"))
    state = Checkpoint(store, "a/b").load()
    spoil(state)
    Checkpoint(store, "a/b").save(state)
    model, whole = net(), net()
    assert trained(model, checkpoint=Checkpoint(store, "a/b")).resumed_at_epoch is None
    trained(whole)
    assert equal(model, whole)
    assert "starting over" in caplog.text


def test_what_cannot_be_learned_is_refused_by_name():
    spoiled = X.copy()
    spoiled[100, 3] = np.nan
    model = net()
    schedule = Schedule(epochs=3)
    with pytest.raises(InputError, match="loss in epoch 1 of 3; found: nan"):
        train_in_place(model, supervised(model), {"x": spoiled}, Y, schedule)
    with pytest.raises(InputError, match="no gradient"):
        trained(model, objective=lambda batch: torch.tensor(1.0))
    with pytest.raises(InputError, match="targets can't be trained on; found: type <U21"):
        train_in_place(model, supervised(model), {"x": X}, Y.astype(str), schedule)
    for changes in ({"epochs": 0}, {"epochs": 1, "batch_size": 0}, {"epochs": 1, "learning_rate": 0.0}):
        with pytest.raises(InputError, match=list(changes)[-1]):
            train_in_place(model, supervised(model), {"x": X}, Y, Schedule(**changes))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter that takes a gradient"):
        trained(model)


def test_half_precision_single_samples_and_strided_data_are_trained_on():
    torch.manual_seed(0)
    model = nn.Linear(20, 4, dtype=torch.bfloat16)
    done = train_in_place(
        model,
        lambda batch: cross_entropy(model(batch.inputs["x"].bfloat16()), batch.targets),
        {"x": np.asfortranarray(X)[::-1]},
        {"only": Y}["only"][::-1],
        Schedule(epochs=6, batch_size=32, learning_rate=3e-2),
    )
    assert done.losses[-1] < done.losses[0]
    one = nn.Linear(20, 4)
    train_in_place(
        one,
        lambda batch: cross_entropy(one(batch.inputs["x"]), batch.targets["y"]),
        {"x": X[:1]},
        {"y": Y[:1]},
        Schedule(epochs=2),
    )


# -- distillation ---------------------------------------------------------------------------------------------


def teacher_and_student(student_width=16):
    teacher = net(seed=1, width=64)
    train_in_place(teacher, supervised(teacher), {"x": X}, Y, Schedule(epochs=10, learning_rate=1e-2))
    return teacher, net(seed=2, width=student_width)


def distilled(student, teacher, teaching, *, epochs=20, **changes):
    torch.manual_seed(0)
    objective = Distillation(student, teacher, teaching, {"x": X})
    extra = objective.projections if len(objective.projections) else None
    schedule = Schedule(epochs=epochs, batch_size=16, learning_rate=1e-2)
    return train_in_place(student, objective, {"x": X}, None, schedule, extra=extra, **changes), objective


def agreement(a, b):
    x = torch.from_numpy(X)
    return float((a(x).argmax(1) == b(x).argmax(1)).float().mean())


@pytest.mark.parametrize(
    "teaching",
    [
        Teaching("logits", temperature=4),
        Teaching("cosine"),
        Teaching("hidden", hidden={"": ""}),
        Teaching("logits", hidden={"2": "2"}),  # of other width: a projection is learned
    ],
)
def test_a_student_learns_its_teachers_answers_without_targets(teaching):
    teacher, student = teacher_and_student()
    weights = [p.detach().clone() for p in teacher.parameters()]
    before = agreement(student, teacher)
    done, _ = distilled(student, teacher, teaching)
    assert agreement(student, teacher) > max(0.8, before)
    assert done.losses[-1] < done.losses[0] / 2
    assert all(torch.equal(a, b) for a, b in zip(weights, teacher.parameters(), strict=True))
    assert not teacher.training


def test_kept_answers_and_answers_asked_for_anew_teach_the_same(monkeypatch):
    teaching = Teaching("logits", hidden={"0": "0"})
    teacher, one = teacher_and_student()
    other = net(seed=2, width=16)
    done, objective = distilled(one, teacher, teaching, epochs=2)
    assert objective.cached
    monkeypatch.setattr("airflow_model_deploy.engine.compression.distillation.CACHE_BYTES", 0)
    anew, objective = distilled(other, teacher, teaching, epochs=2)
    assert not objective.cached
    assert anew.losses == pytest.approx(done.losses, rel=1e-4)


def test_alpha_weighs_the_teacher_against_the_targets():
    teacher, student = teacher_and_student()
    student.eval()
    rows = torch.arange(16)
    batch = module.Batch({"x": torch.from_numpy(X[:16])}, torch.from_numpy(Y[:16]), rows)

    def value(alpha, loss):
        objective = Distillation(student, teacher, Teaching(alpha=alpha), {"x": X}, loss=loss)
        return float(objective(batch).detach())

    soft, hard = value(1.0, None), float(cross_entropy(student(batch.inputs["x"]), batch.targets).detach())
    assert value(None, None) == soft
    assert value(0.25, cross_entropy) == pytest.approx(0.25 * soft + 0.75 * hard, rel=1e-6)
    assert value(None, cross_entropy) == pytest.approx(0.5 * soft + 0.5 * hard, rel=1e-6)
    with pytest.raises(InputError, match="no loss of them"):
        value(0.5, None)


def test_masks_hold_while_a_teacher_teaches():
    teacher, _ = teacher_and_student()
    student = net(seed=1, width=64)
    student.load_state_dict(teacher.state_dict())
    masks = {"0.weight": teacher[0].weight.abs() > teacher[0].weight.abs().mean()}
    apply_masks(student, masks)
    pruned = agreement(student, teacher)
    distilled(student, teacher, Teaching(), masks=masks)
    assert not student[0].weight[~masks["0.weight"]].any()
    assert agreement(student, teacher) > pruned


def test_hidden_states_of_images_and_texts_are_projected_along_the_dimension_that_differs():
    torch.manual_seed(0)
    images = {"x": RANDOM.standard_normal((8, 1, 8, 8)).astype(np.float32)}
    objective = Distillation(PlainCNN(8), PlainCNN(16), Teaching("hidden", hidden={"conv1": "conv1"}), images)
    assert [tuple(p.weight.shape) for p in objective.projections] == [(16, 8)]
    batch = module.Batch({"x": torch.from_numpy(images["x"])}, None, torch.arange(8))
    mine = objective.student.conv1(batch.inputs["x"]).permute(0, 2, 3, 1)
    theirs = objective.teacher.conv1(batch.inputs["x"]).permute(0, 2, 3, 1)
    wanted = (objective.projections[0](mine) - theirs).square().mean()
    assert float(objective(batch).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    texts = {"x": RANDOM.standard_normal((4, 6, 32)).astype(np.float32)}
    with pytest.raises(InputError, match=r"shapes \[2, 6, 64\] and \[2, 3\]"):
        Distillation(Attention(), Attention(), Teaching("hidden", hidden={"up": "head"}), texts)


class Embedder(nn.Module):
    """Words to vectors, padded: what stands behind the mask is arbitrary."""

    def __init__(self, noise=0.0):
        super().__init__()
        self.embed, self.mix, self.noise = nn.Embedding(10, 8), nn.Linear(8, 8), noise

    def forward(self, tokens, attention_mask):
        states = self.mix(self.embed(tokens)) + self.noise * (attention_mask == 0)[..., None]
        return {"states": states, "tokens": tokens}


def test_padding_is_not_learned_from():
    torch.manual_seed(0)
    student, teacher = Embedder(), Embedder(noise=1000.0)
    teacher.load_state_dict(student.state_dict())
    feed = {
        "attention_mask": np.array([[1, 1, 0], [1, 0, 0]]),
        "tokens": np.array([[1, 2, 3], [4, 5, 6]]),
    }
    batch = module.Batch({n: torch.from_numpy(a) for n, a in feed.items()}, None, torch.arange(2))
    for teaching in (Teaching("hidden", hidden={"": ""}), Teaching("cosine")):
        objective = Distillation(student, teacher, teaching, feed)
        assert float(objective(batch).detach()) == pytest.approx(0, abs=1e-6)
    assert float(objective(batch._replace(inputs={**batch.inputs, "attention_mask": torch.ones(2, 3)}))) < 1


@pytest.mark.parametrize(
    ("teaching", "student", "message"),
    [
        (Teaching("hidden", hidden={"conv": "0"}), net(), r"student Sequential .*found: conv; wanted: one of 0, 1,"),
        (Teaching("hidden", hidden={"0": "layer"}), net(), r"teacher Sequential .*found: layer"),
        (Teaching("hidden"), net(), "no pair of modules"),
        (Teaching(temperature=0), net(), "temperature"),
        (Teaching(alpha=1.5), net(), "alpha"),
        (Teaching(dimension=2), net(), r"distillation of logits; found: outputs of shape \[2, 4\]"),
        (Teaching(), nn.Linear(20, 3), r"student's outputs.*\[2, 3\].*wanted: .*\[2, 4\]"),
        (Teaching(), nn.Sequential(nn.Linear(20, 4), nn.Unflatten(1, (4, 1))), r"\[2, 4, 1\]"),
    ],
)  # fmt: skip
def test_a_pair_that_does_not_fit_is_named(teaching, student, message):
    with pytest.raises(InputError, match=message):
        Distillation(student, net(seed=1), teaching, {"x": X})


def test_a_module_that_is_never_called_teaches_nothing():
    student, teacher = net(), net()
    student.add_module("unused", nn.Linear(1, 1))
    student.forward = lambda x: nn.Sequential(*list(student)[:-1])(x)
    with pytest.raises(InputError, match="module 'unused' of Sequential gives nothing"):
        Distillation(student, teacher, Teaching("hidden", hidden={"unused": "0"}), {"x": X})


# -- a user's own function ------------------------------------------------------------------------------------


def test_a_users_function_gets_a_checkpoint_where_it_asks_for_one(tmp_path):
    store, seen = Store(str(tmp_path / "store")), []

    def fit(model, inputs, targets, *, epochs, seed, progress, checkpoint, stop_at=None):
        state = checkpoint.load() or {"epoch": 0, "model": model.state_dict()}
        model.load_state_dict(state["model"])
        for epoch in range(state["epoch"], epochs):
            if epoch == stop_at:
                raise StoppedError
            seen.append(epoch)
            checkpoint.save({"epoch": epoch + 1, "model": model.state_dict()}, now=True)

    def run(kept=None, **options):
        fit_in_place(net(), fit, {"x": X}, Y, masks={}, epochs=3, seed=0, checkpoint=kept, **options)

    with pytest.raises(StoppedError):
        run(Checkpoint(store, "a/b"), stop_at=2)
    run(Checkpoint(store, "a/b"))
    assert seen == [0, 1, 2]
    run()  # where there is none, it may ask and save all the same
    assert seen == [0, 1, 2, 0, 1, 2]
