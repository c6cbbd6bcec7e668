"""Prune a torch model: single weights, channels or neurons; then let the user's training recover it."""

from __future__ import annotations

import logging
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description
from airflow_model_deploy.engine.compression import (
    ZeroReport,
    apply_masks,
    zero_fraction,
    zero_masks,
    zero_report,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    DataSource,
    Surgery,
    UserFunction,
    load_torch_model,
    read_factory,
    reproducible,
)
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.fields import Loss, Metric, Seed, Threads
from airflow_model_deploy.engine.steps.original import original_of
from airflow_model_deploy.engine.steps.pruning import (
    check_method,
    is_structured,
    scope_of,
    structural_surgery,
    weight_masks,
)
from airflow_model_deploy.engine.steps.quality import torch_quality
from airflow_model_deploy.engine.steps.recovery import (
    BatchSize,
    DistillationSpec,
    LearningRate,
    names_recovery,
    recover,
)
from airflow_model_deploy.engine.steps.samples import unmeasured
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import read_example, write_torch

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

Method = Literal[
    "none",
    "channels",
    "ffn",
    "magnitude-mean",
    "magnitude-ratio",
    "gradient-mean",
    "gradient-ratio",
    "taylor-mean",
    "taylor-ratio",
    "wanda-ratio",
]


@spec
class PruneSpec:
    """What goes, and how the rest recovers.

    `channels` removes whole output channels and neurons, `ffn` neurons of transformers' feed-forward blocks, so
    that the model gets smaller and faster. All others set single weights to zero: `*-mean` those with a score below
    the mean score, `*-ratio` the share `ratio` with the smallest scores. The score is |w| for `magnitude`, |g| for
    `gradient`, |w g| for `taylor`, with g the loss's gradient on training data, and |w| by the norm of its inputs
    for `wanda`. `none` passes the model on.
    """

    method: Method = "channels"
    ratio: Annotated[
        float, Field(gt=0, lt=1, description="share of weights, channels or neurons that goes")
    ] = 0.5
    scope: Annotated[
        str | None,
        Field(
            pattern=r"^(global|tensor|row|[1-9]\d{0,5}:[1-9]\d{0,5})$",
            description="compare weights over the whole model ('global'), within a 'tensor' or an output's 'row', or"
            " keep N of each M inputs ('2:4'), whatever the ratio; means take the first two. None: 'row' for wanda,"
            " else 'global'",
        ),
    ] = None
    norm: Annotated[Literal["l1", "l2", "taylor"], Field(description="importance of a channel or neuron")] = (
        "l2"
    )
    round_to: Annotated[
        int | None,
        Field(
            ge=1,
            le=4096,
            description="kept channels or neurons are a multiple of it; None: 8 for channels, 64 for ffn",
        ),
    ] = None
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
    recovery_batch_size: BatchSize = 64
    recovery_learning_rate: LearningRate = 1e-3
    distillation: Annotated[
        DistillationSpec,
        Field(description="what is learned from the unpruned model in the recovery, in place of `fit`"),
    ] = field(default_factory=DistillationSpec)
    data: Annotated[
        DataSource | None,
        Field(description="split 'train' to recover on, 'test' to measure quality; None: neither is done"),
    ] = None
    loss: Loss = None
    gradient_reduction: Annotated[
        Literal["sum_of_abs", "abs_of_sum"],
        Field(description="a weight's gradient over batches: sum of |g|, or |sum of g|"),
    ] = "sum_of_abs"
    score_samples: Annotated[
        int, Field(ge=1, description="training samples, at even distances, to take gradients or inputs of")
    ] = 512
    score_batch_size: Annotated[int, Field(ge=1, description="samples a batch when they are taken")] = 32
    metric: Metric = "accuracy"
    seed: Seed = 0
    threads: Threads = 1


def prune(spec: PruneSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Prune and recover; removed weights stay zero, removed channels are gone."""
    source = inputs["model"]
    if spec.method == "none":
        return StepOutput(passed_on=source.reference, main="model", details={"method": "none"})
    check_method(spec)
    _require_torch(source)
    _require_recoverable(spec)
    model = load_torch_model(source.folder, context.resolve)
    before, zeros_before = sum(parameter.numel() for parameter in model.parameters()), zero_report(model)
    example = read_example(source.folder)
    with reproducible(spec.seed, spec.threads):
        surgery = None
        if is_structured(spec):
            surgery = structural_surgery(spec, model, example, context.resolve)
            surgery.apply(model)
            logger.info("cut %d places of the structure", len(surgery.cuts))
            masks = zero_masks(model)
        else:
            masks = weight_masks(spec, model, context.resolve)
            apply_masks(model, masks)
            logger.info("set %.1f %% of all weights to zero", 100 * zero_fraction(model))
        original = original_of(source, context)
        pruned_quality = torch_quality(model, spec.data, spec.metric, context.resolve, original=original)
        recovered = _recover(spec, source, model, masks, context)
    quality = torch_quality(model, spec.data, spec.metric, context.resolve, original=original)
    folder = context.folder("model")
    signature = write_torch(
        folder,
        model,
        factory=read_factory(source.folder),
        example=example,
        surgery=_joined(source, surgery),
        dynamic=_dynamic(source),
    )
    zeros = zero_report(model)
    metrics = {
        **quality,
        "zero_fraction": zeros.fraction,
        "zeros_after": zeros.zeros,
        "zeros_before": zeros_before.zeros,
        "parameters_before": before,
    }
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name, kind="model", format="torch", signature=signature, metrics=metrics
        ),
        main="model",
        details={
            "method": spec.method,
            **_decided(spec),
            "zeros": _zeros(zeros_before, zeros),
            "quality_before_recovery": pruned_quality.get("quality"),
            **recovered,
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
    named = names_recovery(spec.fit, spec.loss, spec.distillation)
    if spec.recovery_epochs and named and spec.data is None:
        raise InputError(
            "the pruned model can't be recovered",
            found=f"recovery_epochs {spec.recovery_epochs}, but no data",
            wanted="data whose split 'train' the model is trained on",
            remedy="Give `data`, or set recovery_epochs to 0.",
        )
    if spec.recovery_epochs and named is None:
        logger.warning(
            "no training function, loss or distillation is given: the pruned model stays as it is, without recovery"
        )


def _dynamic(source: Input) -> dict[str, dict[int, str]]:
    signature = source.manifest.description.signature
    return signature.dynamic if signature else {}


def _decided(spec: PruneSpec) -> dict[str, Any]:
    """What was compared, and how gradients were added up, where the method does so."""
    if is_structured(spec):
        return {"norm": spec.norm}
    with_gradients = spec.method.startswith(("gradient", "taylor"))
    return {
        "scope": scope_of(spec),
        **({"gradient_reduction": spec.gradient_reduction} if with_gradients else {}),
    }


def _zeros(before: ZeroReport, after: ZeroReport) -> dict[str, dict[str, int]]:
    """Zeros before and after by tensor, of those that have any."""
    earlier = {tensor.name: tensor.zeros for tensor in before.tensors}
    return {
        tensor.name: {
            "elements": tensor.elements, "before": earlier.get(tensor.name, 0), "after": tensor.zeros
        }
        for tensor in after.tensors
        if tensor.zeros or earlier.get(tensor.name)
    }  # fmt: skip


def _recover(
    spec: PruneSpec, source: Input, model: nn.Module, masks: dict[str, Tensor], context: StepContext
) -> dict[str, Any]:
    return recover(
        model,
        context=context,
        data=spec.data,
        epochs=spec.recovery_epochs,
        seed=spec.seed,
        fit=spec.fit,
        loss=spec.loss,
        teacher=lambda: load_torch_model(source.folder, context.resolve),
        distillation=spec.distillation,
        masks=masks,
        batch_size=spec.recovery_batch_size,
        learning_rate=spec.recovery_learning_rate,
    )


def _joined(source: Input, surgery: Surgery | None) -> Surgery | None:
    """Put this surgery behind the one that the model had already."""
    earlier = Surgery.read(source.folder)
    if earlier is None or surgery is None:
        return surgery or earlier
    return earlier.then(surgery)


STEP = Step(
    name="prune",
    summary="Remove weights, channels or neurons of a torch model and let training recover it.",
    spec=PruneSpec,
    function=prune,
    inputs=("model",),
    version=2,
    libraries=("torch", "torch-pruning", "numpy", "safetensors"),
)
