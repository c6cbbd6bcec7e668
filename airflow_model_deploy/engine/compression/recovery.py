"""Trains a pruned model with the user's own function while what was pruned stays zero."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import Checkpoint
from airflow_model_deploy.engine.compression.masks import apply_masks
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import reproducible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from torch import Tensor, nn
    from torch.optim import Optimizer


@contextmanager
def masked_training(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Whatever trains inside, with any torch optimizer, the masked weights are zero after every step.

    Momentum and weight decay move pruned weights, so masking gradients would not do. On exit the masks are
    applied once more, and weights that diverged are refused. Optimizers of other models are left alone.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    apply_masks(model, masks)

    def after_step(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        mine = {id(parameter) for name, parameter in model.named_parameters() if name in masks}
        if any(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
            apply_masks(model, masks)

    handle = register_optimizer_step_post_hook(after_step)
    try:
        yield
    finally:
        handle.remove()
    apply_masks(model, masks)
    _check_trained(model)


def fit_in_place(
    model: nn.Module,
    fit: Callable[..., Any],
    inputs: Mapping[str, np.ndarray],
    targets: np.ndarray | Mapping[str, np.ndarray] | None,
    *,
    masks: Mapping[str, Tensor],
    epochs: int,
    seed: int,
    progress: Callable[..., Any] | None = None,
    checkpoint: Checkpoint | None = None,
    **options: Any,
) -> Any:
    """Run `fit(model, inputs, targets, epochs=, seed=, progress=, **options)` under the masks, reproducibly.

    Args:
        model: trained in place; left in eval mode.
        fit: the user's training function. It trains the model it is given and returns None or the same model.
        inputs: name -> array, dimension 0 = samples.
        targets: what `fit` trains towards.
        masks: True where a weight stays; empty for a model without single pruned weights.
        epochs: at least 1.
        seed: of python, numpy and torch.
        progress: handed to `fit` as it is.
        checkpoint: handed to `fit` where it has a parameter of that name: `checkpoint.load()` returns what the last
            `checkpoint.save(state)` of a killed attempt was given, or None.
        options: further keyword arguments of `fit`.

    Returns:
        What `fit` returned.
    """
    import torch

    if epochs < 1:
        raise InputError("epochs", found=epochs, wanted="at least 1")
    if takes_checkpoint(fit):
        options = {"checkpoint": checkpoint or Checkpoint(), **options}
    with reproducible(seed, torch.get_num_threads()), masked_training(model, masks):
        model.train()
        result = fit(model, inputs, targets, epochs=epochs, seed=seed, progress=progress, **options)
    model.eval()
    from torch import nn

    if isinstance(result, nn.Module) and result is not model:
        raise InputError(
            "training function",
            found="it returned another model",
            wanted="training of the model that it is given, in place",
            remedy="Train the given model; return None.",
        )
    return result


def takes_checkpoint(fit: Callable[..., Any]) -> bool:
    """Whether a training function has a parameter `checkpoint`."""
    try:
        return "checkpoint" in inspect.signature(fit).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return False


def _check_trained(model: nn.Module) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter.detach()).all()):
            raise InputError(
                f"weight {name} after training",
                found="NaN or infinity",
                wanted="finite weights",
                remedy="Lower the learning rate, or prune less.",
            )
