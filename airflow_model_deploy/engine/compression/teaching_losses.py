"""The formulas by which a student is compared with a teacher: soft targets, cosines, hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.compression.losses import wider

if TYPE_CHECKING:
    from torch import Tensor


def soft_target_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    dimension: int = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), its mean over samples and places, in at least float32.

    Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2; the factor T^2 keeps the gradients' size as T changes.

    Args:
        student: logits, [samples, classes, ...] by default.
        teacher: logits of the same shape.
        temperature: T, above 0.
        dimension: where the classes are.
        mask: see `masked_mean`; its places are those that remain without the classes.
    """
    ours = (wider(student) / temperature).log_softmax(dimension)
    theirs = (wider(teacher) / temperature).log_softmax(dimension).to(ours.dtype)
    # A class that the teacher rules out (-inf) adds nothing: the limit of p log p.
    terms = (theirs.exp() * (theirs - ours)).masked_fill(theirs.isneginf(), 0)
    return temperature**2 * masked_mean(terms.sum(dimension), mask)


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of 1 - cos(student, teacher) over the last dimension, in at least float32; 1 where a vector is zero."""
    from torch.nn.functional import cosine_similarity

    wide = wider(student)
    return masked_mean(1 - cosine_similarity(wide, teacher.to(wide.dtype), dim=-1), mask)


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of (student - teacher)^2, in at least float32 (FitNets: Romero et al. 2015, arXiv:1412.6550, eq. 3)."""
    wide = wider(student)
    return masked_mean((wide - teacher.to(wide.dtype)).square(), mask)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of [samples, places, ...] over the places where a mask [samples, places] isn't 0.

    Values of another form, and all of them where no mask is given, count in full; 0 where the mask is 0 everywhere.
    """
    if mask is None or values.shape[: mask.ndim] != mask.shape:
        return values.mean()
    weights = (
        mask.ne(0).to(values.dtype).reshape(*mask.shape, *[1] * (values.ndim - mask.ndim)).expand_as(values)
    )
    return (values * weights).sum() / weights.sum().clamp_min(1)
