"""Distil a trained model into a smaller one, which learns the larger one's answers."""

from __future__ import annotations

import logging
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description
from airflow_model_deploy.engine.compression import Schedule, resolve_loss
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    DataSource,
    Surgery,
    UserFunction,
    build_model,
    load_data,
    load_torch_model,
    read_factory,
    reproducible,
)
from airflow_model_deploy.engine.steps.base import OWN, Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.fields import Loss, Metric, Seed, Threads
from airflow_model_deploy.engine.steps.quality import score
from airflow_model_deploy.engine.steps.recovery import (
    BatchSize,
    DistillationSpec,
    LearningRate,
    distil,
    resumed,
)
from airflow_model_deploy.engine.steps.samples import unmeasured
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import predict, read_example, write_torch

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from airflow_model_deploy.engine.models import Dataset

logger = logging.getLogger(__name__)


@spec
class DistillSpec:
    """Who learns, what of the teacher's answers, and how."""

    student: Annotated[
        UserFunction | None,
        Field(
            description="returns the student, a torch.nn.Module; None: the artifact given as 'student' says it"
        ),
    ] = None
    data: Annotated[
        DataSource | None, Field(description="its split 'train' is learned from, 'test' measures quality")
    ] = None
    distillation: DistillationSpec = field(default_factory=lambda: DistillationSpec(kind="logits"))
    loss: Loss = None
    epochs: Annotated[int, Field(ge=1, description="passes over the training data")] = 10
    batch_size: BatchSize = 64
    learning_rate: LearningRate = 1e-3
    metric: Metric = "accuracy"
    seed: Seed = 0
    threads: Threads = 1


def distill(spec: DistillSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Train the student from the seed; the same spec, models, data and code give the same weights."""
    source = inputs["model"]
    if spec.data is None:
        raise InputError(
            f"{source.name} can't be distilled",
            found="no data",
            wanted="data whose split 'train' the student learns from; it needs no targets",
            remedy="Give `data`.",
        )
    _require_torch(source, "the teacher")
    teacher = load_torch_model(source.folder, context.resolve)
    samples = load_data(spec.data, "train", context.resolve)
    with reproducible(spec.seed, spec.threads):
        student, factory, surgery = _student(spec, inputs, context)
        _check_pair(student, teacher, samples.inputs)
        logger.info("distilling %s on %d samples for %d epochs", source.name, len(samples), spec.epochs)
        done = distil(
            student,
            teacher,
            samples,
            spec.distillation,
            Schedule(
                epochs=spec.epochs,
                batch_size=spec.batch_size,
                learning_rate=spec.learning_rate,
                seed=spec.seed,
            ),
            loss=None if spec.loss is None else resolve_loss(spec.loss, context.resolve),
            masks={},
            checkpoint=context.checkpoint,
        )
    folder = context.folder("model")
    signature = source.manifest.description.signature
    written = write_torch(
        folder,
        student,
        factory=factory,
        example=read_example(source.folder),
        surgery=surgery,
        dynamic=signature.dynamic if signature else {},
    )
    metrics = _metrics(spec, student, teacher, load_data(spec.data, "test", context.resolve), context)
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name, kind="model", format="torch", signature=written, metrics=metrics
        ),
        main="model",
        factory="student" if "student" in inputs else OWN,
        details={
            "kind": spec.distillation.kind,
            "samples": len(samples),
            "epochs": spec.epochs,
            "first_loss": done.losses[0],
            "last_loss": done.losses[-1],
            **resumed(done),
            **unmeasured(metrics, spec.data),
        },
    )


def _require_torch(source: Input, what: str) -> None:
    if source.format != "torch":
        raise InputError(
            f"{what} {source.name} can't be used for distillation",
            found=f"an artifact in format {source.format!r}",
            wanted="a torch model with its factory",
            remedy="Train it, or ingest its weights with their factory.",
        )


def _student(
    spec: DistillSpec, inputs: Inputs, context: StepContext
) -> tuple[nn.Module, UserFunction, Surgery | None]:
    if "student" not in inputs:
        if spec.student is None:
            raise InputError(
                "there is no student",
                found="neither a factory nor an artifact",
                wanted="one of them",
                remedy="Give `student`, the factory of a smaller model.",
            )
        made = build_model(context.resolve(spec.student.path), spec.student.options, spec.student.path)
        return made, spec.student, None
    given = inputs["student"]
    _require_torch(given, "the student")
    factory = read_factory(given.folder)
    if spec.student is not None and spec.student != factory:
        raise InputError(
            "the student's artifact is of another factory",
            found=f"{factory.path} {factory.options}",
            wanted=f"{spec.student.path} {spec.student.options}",
            remedy="Leave `student` out, or give the artifact that this factory made.",
        )
    return load_torch_model(given.folder, context.resolve), factory, Surgery.read(given.folder)


def _check_pair(student: nn.Module, teacher: nn.Module, inputs: dict[str, np.ndarray]) -> None:
    """Try both on two samples: what doesn't fit is told before anything is computed."""
    few = {name: array[:2] for name, array in inputs.items()}
    predict(teacher, few)
    predict(student, few)


def _metrics(
    spec: DistillSpec, student: nn.Module, teacher: nn.Module, test: Dataset, context: StepContext
) -> dict[str, Any]:
    ours, theirs = predict(student, test.inputs), predict(teacher, test.inputs)
    quality = score(ours, test, spec.metric, context.resolve, original=theirs)
    teachers = score(theirs, test, spec.metric, context.resolve, original=theirs)
    return {
        **quality,
        **({"teacher_quality": teachers["quality"]} if "quality" in teachers else {}),
        **_agreement(spec.distillation, ours, theirs),
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "teacher_parameters": sum(parameter.numel() for parameter in teacher.parameters()),
    }


def _agreement(
    distillation: DistillationSpec, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> dict[str, float]:
    """Compare the answers to the test split: share of equal classes after soft targets, else the mean cosine.

    Over several outputs their mean; a zero vector's cosine is 0.
    """
    import numpy as np

    values = []
    for name, mine in ours.items():
        if not np.issubdtype(mine.dtype, np.floating) or mine.ndim < 2:
            continue
        if distillation.kind == "logits":
            place = distillation.dimension
            values.append(float(np.mean(mine.argmax(place) == theirs[name].argmax(place))))
        else:
            a, b = mine.astype(np.float64), theirs[name].astype(np.float64)
            lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
            values.append(float(np.mean((a * b).sum(-1) / np.where(lengths, lengths, 1.0))))
    name = "agreement" if distillation.kind == "logits" else "cosine_to_teacher"
    return {name: float(np.mean(values))} if values else {}


STEP = Step(
    name="distill",
    summary="Train a smaller model on the answers of a larger one.",
    spec=DistillSpec,
    function=distill,
    inputs=("model",),
    optional=("student",),
    libraries=("torch", "numpy", "safetensors"),
)
