"""Trains a model after it was changed: by the user's function, by the user's loss, or by what a teacher answers."""

from __future__ import annotations

import logging
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airflow_model_deploy.engine.compression import (
    Distillation,
    Schedule,
    Teaching,
    Trained,
    fit_in_place,
    forward,
    resolve_loss,
    train_in_place,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Dataset, DataSource, UserFunction, load_data
from airflow_model_deploy.engine.progress import progress
from airflow_model_deploy.engine.steps.spec import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from airflow_model_deploy.engine.artifacts import Checkpoint
    from airflow_model_deploy.engine.compression import Loss
    from airflow_model_deploy.engine.steps.base import StepContext

logger = logging.getLogger(__name__)

BatchSize = Annotated[int, Field(ge=1, description="samples a training step, without `fit`")]
LearningRate = Annotated[
    float, Field(gt=0, lt=10, description="peak of the one-cycle learning rate, without `fit`")
]


@spec
class DistillationSpec:
    """What of a teacher's answers is learned."""

    kind: Annotated[
        Literal["none", "logits", "cosine", "hidden"],
        Field(
            description="logits: soft targets; cosine: the outputs' direction; hidden: the named modules alone"
        ),
    ] = "none"
    temperature: Annotated[float, Field(gt=0, le=1000, description="of the soft targets")] = 2.0
    alpha: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="weight of what the teacher says; the rest goes to the loss of the targets. None: a half"
            " where there are a loss and targets, else 1",
        ),
    ] = None
    hidden: Annotated[
        dict[str, str],
        Field(
            description="student's module -> teacher's module, whose outputs are to agree; '' is the whole model"
        ),
    ] = field(default_factory=dict)
    dimension: Annotated[
        int,
        Field(description="of the outputs, where the classes are; -1 for tokens [samples, tokens, classes]"),
    ] = 1


def names_recovery(
    fit: UserFunction | None, loss: str | UserFunction | None, distillation: DistillationSpec | None
) -> Literal["distillation", "fit", "loss"] | None:
    """Say by what a model recovers: a teacher that is asked for, else the user's function, else the loss."""
    if distillation is not None and distillation.kind != "none":
        return "distillation"
    return "fit" if fit else "loss" if loss else None


def recover(
    model: nn.Module,
    *,
    context: StepContext,
    data: DataSource | None,
    epochs: int,
    seed: int,
    fit: UserFunction | None = None,
    loss: str | UserFunction | None = None,
    teacher: Callable[[], nn.Module] | None = None,
    distillation: DistillationSpec | None = None,
    masks: Mapping[str, Tensor] | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:
    """Train a model in place, for `epochs` passes over split 'train'; masked weights stay zero.

    With `distillation` it learns from the teacher, and from the loss where there are targets; else `fit` trains it;
    else our own loop does, by the loss. With none of them, or without data or epochs, it stays as it is.

    Args:
        model: trained in place; left in eval mode.
        context: the step's.
        data: where split 'train' comes from.
        epochs: 0: no recovery.
        seed: every random choice follows from it.
        fit: the user's training function.
        loss: by name, or the user's function.
        teacher: returns the model to learn from; called only where it is learned from.
        distillation: what is learned from it.
        masks: parameter -> True where a weight stays.
        batch_size: of our own loop.
        learning_rate: of our own loop.
        checkpoint: where the training is resumed from; None: the step's own. One that trains several times gives
            each time a part of it.

    Returns:
        For the result's details: "recovery" ("distillation", "fit", "loss" or None), "recovery_epochs", and
        "resumed_at_epoch" where a killed attempt was gone on with.
    """
    way = names_recovery(fit, loss, distillation)
    if way is None or data is None or not epochs:
        return {"recovery": None, "recovery_epochs": 0}
    samples = load_data(data, "train", context.resolve)
    kept = checkpoint or context.checkpoint
    logger.info("recovering by %s on %d samples for %d epochs", way, len(samples), epochs)
    told: dict[str, Any] = {"recovery": way, "recovery_epochs": epochs}
    if way == "fit" and fit is not None:
        return told | fit_with(
            fit, model, samples, context, epochs=epochs, seed=seed, masks=masks or {}, checkpoint=kept
        )
    schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    hard = resolve_loss(loss, context.resolve) if loss is not None else None
    if way == "distillation" and distillation is not None:
        if teacher is None:
            raise TypeError("distillation needs a teacher")
        done = distil(
            model, teacher(), samples, distillation, schedule, loss=hard, masks=masks or {}, checkpoint=kept
        )
    else:
        done = train_by_loss(model, samples, _needed(hard), schedule, masks=masks or {}, checkpoint=kept)
    return told | resumed(done)


def fit_with(
    fit: UserFunction,
    model: nn.Module,
    samples: Dataset,
    context: StepContext,
    *,
    epochs: int,
    seed: int,
    masks: Mapping[str, Tensor],
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:
    """Train with the user's function; returns {"resumed": True} where it took up a checkpoint."""
    kept = checkpoint or context.checkpoint
    fit_in_place(
        model,
        context.resolve(fit.path),
        samples.inputs,
        samples.targets,
        masks=masks,
        epochs=epochs,
        seed=seed,
        progress=progress,
        checkpoint=kept,
        **fit.options,
    )
    return {"resumed": True} if kept.found else {}


def train_by_loss(
    model: nn.Module,
    samples: Dataset,
    loss: Loss,
    schedule: Schedule,
    *,
    masks: Mapping[str, Tensor],
    checkpoint: Checkpoint,
) -> Trained:
    """Train with our own loop towards the targets."""
    return train_in_place(
        model,
        lambda batch: loss(forward(model, batch.inputs), batch.targets),
        samples.inputs,
        samples.targets,
        schedule,
        masks=masks,
        progress=progress,
        checkpoint=checkpoint,
    )


def distil(
    student: nn.Module,
    teacher: nn.Module,
    samples: Dataset,
    distillation: DistillationSpec,
    schedule: Schedule,
    *,
    loss: Loss | None,
    masks: Mapping[str, Tensor],
    checkpoint: Checkpoint,
) -> Trained:
    """Train a student with our own loop towards a teacher's answers; a loss counts only where there are targets."""
    if distillation.kind == "none":
        raise InputError(
            "distillation.kind", found="none", wanted="logits, cosine or hidden",
            remedy="Say what the student shall learn from the teacher.",
        )  # fmt: skip
    teaching = Teaching(
        kind=distillation.kind,
        temperature=distillation.temperature,
        alpha=distillation.alpha,
        hidden=distillation.hidden,
        dimension=distillation.dimension,
    )
    if samples.targets is None and distillation.alpha is None:
        loss = None
    objective = Distillation(student, teacher, teaching, samples.inputs, loss=loss)
    return train_in_place(
        student,
        objective,
        samples.inputs,
        samples.targets,
        schedule,
        masks=masks,
        extra=objective.projections if len(objective.projections) else None,
        progress=progress,
        checkpoint=checkpoint,
    )


def resumed(done: Trained) -> dict[str, Any]:
    """Return, for a result's details, where a killed attempt was gone on with; {} where there was none."""
    return {} if done.resumed_at_epoch is None else {"resumed_at_epoch": done.resumed_at_epoch}


def _needed(loss: Loss | None) -> Loss:
    if loss is None:
        raise TypeError("training needs a loss")
    return loss
