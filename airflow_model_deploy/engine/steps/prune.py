"""Prune a torch model: single weights by magnitude, or whole channels; then let the user's training recover it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description
from airflow_model_deploy.engine.compression import (
    apply_masks,
    fit_in_place,
    magnitude_masks,
    prunable_weights,
    prune_channels,
    zero_fraction,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    DataSource,
    Surgery,
    UserFunction,
    load_data,
    load_torch_model,
    read_factory,
    reproducible,
)
from airflow_model_deploy.engine.progress import progress
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.fields import Metric, Seed, Threads
from airflow_model_deploy.engine.steps.quality import torch_quality
from airflow_model_deploy.engine.steps.samples import unmeasured
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import read_example, write_torch

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

Method = Literal["none", "channels", "magnitude-mean", "magnitude-ratio"]


@spec
class PruneSpec:
    """What goes, and how the rest recovers.

    `magnitude-mean` removes each weight with |w| below the mean of |w|; `magnitude-ratio` the smallest share
    `ratio` of them; `channels` whole output channels and neurons, so that the model gets smaller and faster;
    `none` passes the model on.
    """

    method: Method = "channels"
    ratio: Annotated[float, Field(gt=0, lt=1, description="share of weights or of channels that goes")] = 0.5
    scope: Annotated[
        Literal["global", "tensor"],
        Field(description="compare weights over the whole model, or within a tensor"),
    ] = "global"
    norm: Annotated[Literal["l1", "l2"], Field(description="importance of a channel")] = "l2"
    round_to: Annotated[int, Field(ge=1, le=256, description="kept channels are a multiple of it")] = 8
    include: Annotated[tuple[str, ...], Field(description="patterns of parameter names to prune")] = ("*",)
    exclude: Annotated[
        tuple[str, ...], Field(description="patterns of parameter or module names to leave")
    ] = ()
    fit: Annotated[
        UserFunction | None, Field(description="the training function that recovers the pruned model")
    ] = None
    recovery_epochs: Annotated[
        int, Field(ge=0, description="passes over the training data; 0: no recovery")
    ] = 0
    data: Annotated[
        DataSource | None,
        Field(description="split 'train' to recover on, 'test' to measure quality; None: neither is done"),
    ] = None
    metric: Metric = "accuracy"
    seed: Seed = 0
    threads: Threads = 1


def prune(spec: PruneSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Prune and recover; removed weights stay zero, removed channels are gone."""
    source = inputs["model"]
    if spec.method == "none":
        return StepOutput(passed_on=source.reference, main="model", details={"method": "none"})
    _require_torch(source)
    _require_recoverable(spec)
    model = load_torch_model(source.folder, context.resolve)
    before = sum(parameter.numel() for parameter in model.parameters())
    example = read_example(source.folder)
    with reproducible(spec.seed, spec.threads):
        masks: dict[str, Tensor] = {}
        surgery = None
        if spec.method == "channels":
            surgery = _prune_channels(spec, model, example)
        else:
            masks = _prune_weights(spec, model)
        pruned_quality = torch_quality(model, spec.data, spec.metric, context.resolve)
        _recover(spec, model, masks, context)
    quality = torch_quality(model, spec.data, spec.metric, context.resolve)
    folder = context.folder("model")
    signature = write_torch(
        folder,
        model,
        factory=read_factory(source.folder),
        example=example,
        surgery=_joined(source, surgery),
        dynamic=_dynamic(source),
    )
    metrics = {**quality, "zero_fraction": zero_fraction(model), "parameters_before": before}
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name, kind="model", format="torch", signature=signature, metrics=metrics
        ),
        main="model",
        details={
            "method": spec.method,
            "quality_before_recovery": pruned_quality.get("quality"),
            "recovery_epochs": spec.recovery_epochs if spec.fit else 0,
            **unmeasured(quality, spec.data),
        },
    )


def _require_torch(source: Input) -> None:
    if source.format != "torch":
        raise InputError(
            f"{source.name} can't be pruned",
            found=f"an artifact in format {source.format!r}: a graph that no training code can recover",
            wanted="a torch model with its factory",
            remedy="Choose method 'none', or ingest the weights with their factory.",
        )


def _require_recoverable(spec: PruneSpec) -> None:
    if spec.recovery_epochs and spec.fit and spec.data is None:
        raise InputError(
            "the pruned model can't be recovered",
            found=f"recovery_epochs {spec.recovery_epochs}, but no data",
            wanted="data whose split 'train' the model is trained on",
            remedy="Give `data`, or set recovery_epochs to 0.",
        )
    if spec.recovery_epochs and spec.fit is None:
        logger.warning("no training function is given: the pruned model stays as it is, without recovery")


def _dynamic(source: Input) -> dict[str, dict[int, str]]:
    signature = source.manifest.description.signature
    return signature.dynamic if signature else {}


def _prune_channels(spec: PruneSpec, model: nn.Module, example: dict[str, Any]) -> Surgery:
    import torch

    surgery = prune_channels(
        model,
        {name: torch.from_numpy(array) for name, array in example.items()},
        ratio=spec.ratio,
        round_to=spec.round_to,
        criterion=spec.norm,
        exclude=spec.exclude,
    )
    surgery.apply(model)
    logger.info("cut %d places of the structure", len(surgery.cuts))
    return surgery


def _prune_weights(spec: PruneSpec, model: nn.Module) -> dict[str, Tensor]:
    weights = prunable_weights(model, include=spec.include, exclude=spec.exclude)
    masks = magnitude_masks(
        weights,
        criterion="mean" if spec.method == "magnitude-mean" else "ratio",
        scope=spec.scope,
        ratio=spec.ratio,
    )
    apply_masks(model, masks)
    logger.info("set %.1f %% of all weights to zero", 100 * zero_fraction(model))
    return masks


def _recover(spec: PruneSpec, model: nn.Module, masks: dict[str, Tensor], context: StepContext) -> None:
    if spec.fit is None or spec.data is None or not spec.recovery_epochs:
        return
    data = load_data(spec.data, "train", context.resolve)
    logger.info("recovering on %d samples for %d epochs", len(data), spec.recovery_epochs)
    fit_in_place(
        model,
        context.resolve(spec.fit.path),
        data.inputs,
        data.targets,
        masks=masks,
        epochs=spec.recovery_epochs,
        seed=spec.seed,
        progress=progress,
        **spec.fit.options,
    )


def _joined(source: Input, surgery: Surgery | None) -> Surgery | None:
    """Put this surgery behind the one that the model had already."""
    earlier = Surgery.read(source.folder)
    if earlier is None or surgery is None:
        return surgery or earlier
    return earlier.then(surgery)


STEP = Step(
    name="prune",
    summary="Remove weights or channels of a torch model and let training recover it.",
    spec=PruneSpec,
    function=prune,
    inputs=("model",),
    libraries=("torch", "torch-pruning", "numpy", "safetensors"),
)
