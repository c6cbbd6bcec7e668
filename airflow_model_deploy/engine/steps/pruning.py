"""What the prune step takes away, by its spec: masks for single weights, cuts for channels and neurons."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression import (
    accumulated_gradients,
    batch_gradients,
    check_rule,
    input_square_sums,
    joined_masks,
    prunable_weights,
    prune_channels,
    prune_ffn,
    resolve_loss,
    score_masks,
    taylor_scores,
    wanda_scores,
    weight_layouts,
    zero_masks,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import load_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from torch import Tensor, nn

    from airflow_model_deploy.engine.compression.losses import Loss
    from airflow_model_deploy.engine.models import Dataset, Surgery
    from airflow_model_deploy.engine.steps.prune import PruneSpec

    Resolve = Callable[[str], Callable[..., Any]]

logger = logging.getLogger(__name__)

STRUCTURED = ("channels", "ffn")
_ROUND_TO = {"channels": 8, "ffn": 64}
_NEEDS_LOSS = ("gradient", "taylor")


def is_structured(spec: PruneSpec) -> bool:
    """Whether layers get smaller, and no weight is set to zero."""
    return spec.method in STRUCTURED


def is_measured(spec: PruneSpec) -> bool:
    """Whether what goes is decided on training data."""
    return _criterion(spec) in (*_NEEDS_LOSS, "wanda")


def scope_of(spec: PruneSpec) -> str:
    """What weights are compared over: as the spec says, else as the method is published."""
    return spec.scope or ("row" if spec.method.startswith("wanda") else "global")


def check_method(spec: PruneSpec) -> None:
    """Refuse a method that lacks something, or a scope that does not go with it, before anything is loaded."""
    if not is_structured(spec):
        check_rule(spec.method.rpartition("-")[2], scope_of(spec), spec.ratio)
    criterion = _criterion(spec)
    if is_measured(spec) and spec.data is None:
        raise _lacking(spec, "no data", "data with a split 'train'", "Give `data`")
    if criterion in _NEEDS_LOSS and spec.loss is None:
        raise _lacking(
            spec, "no loss", "the loss to take gradients of", "Give `loss`, such as cross_entropy or mse"
        )


def structural_surgery(
    spec: PruneSpec, model: nn.Module, example: Mapping[str, np.ndarray], resolve: Resolve
) -> Surgery:
    """The cuts of channels, or of feed-forward neurons."""
    import torch

    gradients = None
    if spec.norm == "taylor":
        data, loss = _data(spec, resolve), _loss(spec, resolve)
        parameters = dict(model.named_parameters())
        gradients = batch_gradients(model, parameters, data, loss, batch_size=spec.score_batch_size)
    function = prune_channels if spec.method == "channels" else prune_ffn
    return function(
        model,
        {name: torch.from_numpy(array) for name, array in example.items()},
        ratio=spec.ratio,
        round_to=spec.round_to or _ROUND_TO[spec.method],
        criterion=spec.norm,
        exclude=spec.exclude,
        gradients=gradients,
    )


def weight_masks(spec: PruneSpec, model: nn.Module, resolve: Resolve) -> dict[str, Tensor]:
    """What stays of single weights; what was zero before goes too."""
    weights = prunable_weights(model, include=spec.include, exclude=spec.exclude)
    layouts = weight_layouts(model)
    masks = score_masks(
        _scores(spec, model, weights, resolve),
        rule="mean" if spec.method.endswith("-mean") else "ratio",
        scope=scope_of(spec),
        ratio=spec.ratio,
        weights=weights,
        layouts=layouts,
    )
    return joined_masks(masks, zero_masks(model))


def _scores(
    spec: PruneSpec, model: nn.Module, weights: dict[str, nn.Parameter], resolve: Resolve
) -> Mapping[str, Tensor]:
    criterion = _criterion(spec)
    if criterion == "magnitude":
        return weights
    data = _data(spec, resolve)
    logger.info("scoring %d tensors by %s on %d samples", len(weights), criterion, len(data))
    if criterion == "wanda":
        sums = input_square_sums(model, weights, data, batch_size=spec.score_batch_size)
        return wanda_scores(weights, sums, weight_layouts(model))
    gradients = accumulated_gradients(
        model,
        weights,
        data,
        _loss(spec, resolve),
        reduction=spec.gradient_reduction,
        batch_size=spec.score_batch_size,
    )
    return gradients if criterion == "gradient" else taylor_scores(weights, gradients)


def _criterion(spec: PruneSpec) -> str:
    return spec.norm if is_structured(spec) else spec.method.partition("-")[0]


def _data(spec: PruneSpec, resolve: Resolve) -> Dataset:
    if spec.data is None:
        raise _lacking(spec, "no data", "data with a split 'train'", "Give `data`")
    return load_data(spec.data, "train", resolve).spread(spec.score_samples)


def _loss(spec: PruneSpec, resolve: Resolve) -> Loss:
    if spec.loss is None:
        raise _lacking(spec, "no loss", "the loss to take gradients of", "Give `loss`")
    return resolve_loss(spec.loss, resolve)


def _lacking(spec: PruneSpec, found: str, wanted: str, remedy: str) -> InputError:
    method = f"{spec.method} with norm taylor" if is_structured(spec) else spec.method
    instead = "norm l2" if is_structured(spec) else "magnitude-ratio"
    return InputError(
        f"method {method} can't tell what goes",
        found=found,
        wanted=wanted,
        remedy=f"{remedy}, or choose {instead}, which needs none.",
    )
