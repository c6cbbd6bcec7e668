"""Losses and what a teacher teaches, against float64 references written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_model_deploy.engine.compression.losses import (
    LOSSES,
    cosine,
    cross_entropy,
    l1,
    mse,
    resolve_loss,
)
from airflow_model_deploy.engine.compression.teaching_losses import (
    cosine_loss,
    hidden_loss,
    masked_mean,
    soft_target_loss,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import UserFunction

DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64])
SHAPES = st.sampled_from([(1, 2), (5, 3), (4, 3, 2), (1, 7)])


@st.composite
def tensors(draw, count=2):
    """Tensors of one shape and type, laid out as they come: zeros, constants and views among them."""
    shape, dtype, seed = draw(SHAPES), draw(DTYPES), draw(st.integers(0, 2**20))
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        kind = draw(st.sampled_from(["normal", "large", "zeros", "constant", "view"]))
        tensor = torch.randn(shape, generator=generator, dtype=torch.float64) * (50 if kind == "large" else 1)
        if kind in ("zeros", "constant"):
            tensor = torch.full(shape, 0.0 if kind == "zeros" else 3.0, dtype=torch.float64)
        tensor = tensor.to(dtype)
        made.append(tensor.T.contiguous().T if kind == "view" and tensor.ndim == 2 else tensor)
    return made


def array(tensor):
    return tensor.double().numpy()


def log_softmax(x, axis=1):
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def near(found, wanted, dtype, scale=1.0):
    """Equal up to a few roundings of numbers about `scale`."""
    assert found.ndim == 0
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    rounding = 1e-12 if dtype == torch.float64 else 1e-6
    assert float(found) == pytest.approx(wanted, rel=20 * rounding, abs=(10 + scale) * rounding)


@settings(max_examples=60, deadline=None)
@given(tensors(), st.floats(0.5, 20))
def test_soft_targets_are_the_divergence_times_the_squared_temperature(pair, temperature):
    student, teacher = pair
    p, q = (log_softmax(array(x) / temperature) for x in (teacher, student))
    wanted = temperature**2 * (np.exp(p) * (p - q)).sum(axis=1).mean()
    near(soft_target_loss(student, teacher, temperature=temperature), wanted, student.dtype, temperature**2)


@settings(max_examples=40, deadline=None)
@given(tensors())
def test_cosine_and_hidden_losses_are_their_formulas(pair):
    student, teacher = pair
    a, b = array(student), array(teacher)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines = np.divide((a * b).sum(-1), lengths, out=np.zeros(lengths.shape), where=lengths > 0)
    near(cosine_loss(student, teacher), (1 - cosines).mean(), student.dtype)
    near(cosine(student, teacher), (1 - cosines).mean(), student.dtype)
    near(hidden_loss(student, teacher), np.square(a - b).mean(), student.dtype)
    near(mse(student, teacher), np.square(a - b).mean(), student.dtype)
    near(l1(student, teacher), np.abs(a - b).mean(), student.dtype)


@settings(max_examples=40, deadline=None)
@given(tensors(1), st.integers(0, 99))
def test_cross_entropy_is_the_mean_of_the_targets_negative_log_probability(made, seed):
    (logits,) = made
    shape = (logits.shape[0], *logits.shape[2:])
    targets = np.random.default_rng(seed).integers(0, logits.shape[1], shape)
    log_p = np.take_along_axis(log_softmax(array(logits)), targets[:, None], axis=1)
    for dtype in (np.int64, np.int32, np.uint8):
        near(cross_entropy(logits, torch.from_numpy(targets.astype(dtype))), -log_p.mean(), logits.dtype)


def test_soft_targets_reach_gradients_of_the_same_size_whatever_the_temperature():
    """As T grows, the gradient goes to (student - teacher) / classes, for logits without a mean (Hinton, eq. 4)."""
    student = torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.5, 0.5, -1.0]], dtype=torch.float64)
    soft_target_loss(student, teacher, temperature=1e4).backward()
    assert torch.allclose(student.grad, (student.detach() - teacher) / 3, atol=1e-4)


def test_a_class_that_the_teacher_rules_out_adds_nothing():
    student = torch.tensor([[0.0, 1.0, 2.0]])
    teacher = torch.tensor([[0.0, 1.0, -torch.inf]])
    p, q = np.array([[0.0, 1.0]]), np.array([[0.0, 1.0, 2.0]])
    wanted = (np.exp(log_softmax(p)) * (log_softmax(p) - log_softmax(q)[:, :2])).sum()
    assert float(soft_target_loss(student, teacher)) == pytest.approx(wanted, rel=1e-6)


def test_token_by_token_logits_have_their_classes_at_the_end_and_a_mask():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 5, generator=generator) for _ in range(2))
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    p, q = (log_softmax(array(x), axis=-1) for x in (teacher, student))
    each = (np.exp(p) * (p - q)).sum(-1)
    found = soft_target_loss(student, teacher, dimension=-1, mask=mask)
    assert float(found) == pytest.approx((each[0, 0] + each[0, 1] + each[1, 0]) / 3, rel=1e-5)
    teacher[mask == 0] = torch.nan  # what is masked is not looked at
    assert float(hidden_loss(student, teacher.nan_to_num(9), mask)) == pytest.approx(
        float((student - teacher)[mask == 1].square().mean()), rel=1e-6
    )


@pytest.mark.parametrize(("shape", "expected"), [((2, 2), 2.0), ((2, 2, 3), 2.0), ((2,), 1.5), ((2, 3), 3.5)])
def test_a_mask_counts_for_what_begins_with_its_shape(shape, expected):
    values = {2: torch.tensor([[1.0, 9.0], [3.0, 9.0]])}
    mask = torch.tensor([[1, 0], [1, 0]])
    if shape == (2, 2, 3):
        given = values[2][..., None].expand(2, 2, 3)
    elif shape == (2, 2):
        given = values[2]
    else:
        given = torch.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    assert float(masked_mean(given, mask)) == pytest.approx(expected)
    assert float(masked_mean(torch.ones(2, 2), torch.zeros(2, 2))) == 0


def test_a_named_loss_takes_one_tensor_or_the_output_that_it_names():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    wanted = torch.nn.functional.cross_entropy(logits, labels)
    plain = resolve_loss("cross_entropy", None)
    named = resolve_loss("cross_entropy:classes", None)
    assert plain(logits, labels) == plain((logits,), labels) == plain({"any": logits}, labels) == wanted
    both = {"box": torch.zeros(4, 2), "classes": logits}
    assert named(both, labels) == named(both, {"classes": labels, "box": None}) == wanted
    assert resolve_loss("cross_entropy:output_1", None)((both["box"], logits), labels) == wanted
    with pytest.raises(InputError, match=r"outputs \['box', 'classes'\].*cross_entropy:<output>"):
        plain(both, labels)
    with pytest.raises(InputError, match="wanted: some named 'classes'"):
        named(both, {"a": labels, "b": labels})


def test_numbers_a_sample_match_a_column_of_outputs():
    assert float(mse(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0]))) == 5
    assert float(l1(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))) == 2


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "message"),
    [
        ("cross_entropy", torch.zeros(2, 3), torch.tensor([0, 3]), "class 3; wanted: class numbers 0 to 2"),
        ("cross_entropy", torch.zeros(2, 3), torch.zeros(2), r"outputs \[2, 3\], targets \[2\]"),
        ("cross_entropy", torch.zeros(2), torch.tensor([0, 1]), "logits"),
        ("mse", torch.zeros(2, 3), torch.zeros(3, 2), r"targets \[3, 2\]"),
        ("l1", torch.zeros(0, 3), torch.zeros(0, 3), r"outputs \[0, 3\]"),
        ("cosine", torch.zeros(2), torch.zeros(2), "vectors"),
        ("mse", torch.zeros(2, dtype=torch.int64), torch.zeros(2), "int64"),
        ("mse", torch.zeros(2, 3), None, "data without targets"),
    ],
)
def test_targets_that_do_not_fit_are_named(name, outputs, targets, message):
    with pytest.raises(InputError, match=message):
        resolve_loss(name, None)(outputs, targets)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"cross_entropie.*cross_entropy, mse, l1, cosine"):
        resolve_loss("cross_entropie", None)
    assert len(LOSSES) == 4


def test_an_own_loss_gets_one_tensor_its_targets_and_its_options():
    def weighted(outputs, targets, *, weight):
        return weight * (outputs - targets).square().mean()

    loss = resolve_loss(UserFunction("mine:weighted", {"weight": 2.0}), lambda path: weighted)
    assert float(loss({"only": torch.ones(2)}, torch.zeros(2))) == 2
    for wrong, told in (
        (lambda o, t: 1.0, "float"), (lambda o, t: o, r"torch.float32 \[2\]"),
        (lambda o, t: o.argmax(), "torch.int64"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"loss mine:wrong; found: {told}"):
            resolve_loss(UserFunction("mine:wrong"), lambda path, wrong=wrong: wrong)(torch.ones(2), None)
