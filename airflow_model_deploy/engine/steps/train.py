"""Train a model with the user's own training function."""

from __future__ import annotations

import logging
from dataclasses import field
from typing import Annotated

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description
from airflow_model_deploy.engine.models import DataSource, UserFunction, build_model, load_data, reproducible
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.fields import Dynamic, Metric, Name, Seed, Threads
from airflow_model_deploy.engine.steps.quality import torch_quality
from airflow_model_deploy.engine.steps.recovery import fit_with
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import write_torch

logger = logging.getLogger(__name__)


@spec
class TrainSpec:
    """What to train, on what, and how."""

    name: Name
    factory: Annotated[UserFunction, Field(description="returns the untrained torch.nn.Module")]
    fit: Annotated[
        UserFunction,
        Field(
            description="fit(model, inputs, targets, *, epochs, progress, seed, **options) trains in place"
        ),
    ]
    data: Annotated[DataSource, Field(description="its split 'train' is trained on, 'test' measures quality")]
    epochs: Annotated[int, Field(ge=1, description="passes over the training data")] = 10
    metric: Metric = "accuracy"
    dynamic: Dynamic = field(default_factory=dict)
    seed: Seed = 0
    threads: Threads = 1


def train(spec: TrainSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Train from the seed; the same spec, data and code give the same weights on the same kind of CPU."""
    del inputs
    data = load_data(spec.data, "train", context.resolve)
    with reproducible(spec.seed, spec.threads):
        model = build_model(context.resolve(spec.factory.path), spec.factory.options, spec.factory.path)
        logger.info("training %s on %d samples for %d epochs", spec.name, len(data), spec.epochs)
        told = fit_with(spec.fit, model, data, context, epochs=spec.epochs, seed=spec.seed, masks={})
    folder = context.folder("model")
    signature = write_torch(folder, model, factory=spec.factory, example=data.inputs, dynamic=spec.dynamic)
    metrics = torch_quality(model, spec.data, spec.metric, context.resolve, original="itself")
    return StepOutput(
        folder=folder,
        description=Description(
            name=spec.name, kind="model", format="torch", signature=signature, metrics=metrics
        ),
        details={"samples": len(data), "epochs": spec.epochs, **told},
    )


STEP = Step(
    name="train",
    summary="Train a model with the user's training function.",
    spec=TrainSpec,
    function=train,
    libraries=("torch", "numpy", "safetensors"),
)
