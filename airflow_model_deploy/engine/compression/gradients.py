"""Takes gradients of the user's loss over real batches; leaves weights, modes and stored gradients as they were."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.compression.forward import forward
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from airflow_model_deploy.engine.compression.losses import Loss
    from airflow_model_deploy.engine.models import Dataset

Reduction = Literal["sum_of_abs", "abs_of_sum"]


def accumulated_gradients(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    data: Dataset,
    loss: Loss,
    *,
    reduction: Reduction = "sum_of_abs",
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """|g| of every weight over all batches of the data, in float64 on the CPU, never negative.

    sum_of_abs: sum_b |g_b|. A weight that batches pull to and fro counts as important. abs_of_sum: |sum_b g_b|,
    the gradient over all data; it fades at every weight of a model that was trained to the end.

    Args:
        model: run in eval mode: batch norms use their stored statistics, dropout is off.
        weights: those of its parameters to take gradients of.
        data: samples with targets.
        loss: loss(what forward returned, targets as tensors) -> scalar tensor.
        reduction: "sum_of_abs" or "abs_of_sum".
        batch_size: samples a batch; a smaller last batch counts as one batch.

    Raises:
        InputError: the loss has no gradients, is not finite, or depends on none of the weights.
    """
    import torch

    if reduction not in ("sum_of_abs", "abs_of_sum"):
        raise InputError("gradient_reduction", found=reduction, wanted="sum_of_abs or abs_of_sum")
    totals = {name: torch.zeros(weight.shape, dtype=torch.float64) for name, weight in weights.items()}
    for gradients in batch_gradients(model, weights, data, loss, batch_size=batch_size):
        for name, gradient in gradients.items():
            wide = gradient.to("cpu", torch.float64)
            totals[name] += wide.abs() if reduction == "sum_of_abs" else wide
    if not any(bool(total.any()) for total in totals.values()):
        raise InputError(
            f"the gradients of the loss on {type(model).__name__}",
            found="0 for every weight to prune",
            wanted="a loss that these weights change",
            remedy="Give a loss that depends on the model's outputs and targets.",
        )
    return {name: total.abs_() for name, total in totals.items()}


def batch_gradients(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    data: Dataset,
    loss: Loss,
    *,
    batch_size: int = 32,
) -> Iterator[dict[str, Tensor]]:
    """The gradients of the loss by these weights, batch after batch; weights a batch does not use have zeros.

    The arguments are those of `accumulated_gradients`.
    """
    import torch

    with _evaluated(model, weights), torch.enable_grad():
        for number, (feed, targets) in enumerate(batches(data, batch_size)):
            value = loss(call(model, feed), targets)
            _check_loss(value, number)
            try:
                found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            except RuntimeError as error:
                raise InputError(
                    f"the gradients of the loss on {type(model).__name__}",
                    found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                    wanted="a loss and a forward that gradients pass through",
                    remedy="Use no .detach(), .item() or torch.no_grad() on the way from weights to loss.",
                ) from error
            gradients = {
                name: torch.zeros_like(weight) if gradient is None else gradient
                for (name, weight), gradient in zip(weights.items(), found, strict=True)
            }
            _check_gradients(gradients, number)
            yield gradients


def batches(data: Dataset, size: int) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """Inputs and targets as tensors, `size` samples at a time in order; the last batch may be smaller."""
    import torch

    if size < 1:
        raise InputError("batch_size", found=size, wanted="at least 1")
    for begin in range(0, len(data), size):
        part = data.take(slice(begin, begin + size))
        targets: Any = part.targets
        if isinstance(targets, dict):
            targets = {name: torch.from_numpy(array) for name, array in targets.items()}
        elif targets is not None:
            targets = torch.from_numpy(targets)
        yield {name: torch.from_numpy(array) for name, array in part.inputs.items()}, targets


def call(model: nn.Module, feed: Mapping[str, Tensor]) -> Any:
    """Call the model with a batch; where forward can't take it, names, types and shapes are told."""
    try:
        return forward(model, feed)
    except (TypeError, RuntimeError, ValueError, IndexError) as error:
        given = ", ".join(
            f"{name}: {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for name, tensor in feed.items()
        )
        raise InputError(
            f"{type(model).__name__}.forward can't be called with the data's inputs",
            found=f"{given}: {' '.join(str(error).split())[:400]}",
            wanted="inputs named as forward's arguments, of the types and shapes that it takes",
            remedy="Correct what the data loader returns.",
        ) from error


@contextmanager
def _evaluated(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Eval mode, with gradients on for these weights; both are put back."""
    modes = {module: module.training for module in model.modules()}
    wanted = {name: weight.requires_grad for name, weight in weights.items()}
    model.eval()
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(wanted[name])
        for module, training in modes.items():
            module.training = training


def _check_loss(value: Any, number: int) -> None:
    import torch

    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        found = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError("the loss", found=found, wanted="a tensor with one number")
    if not bool(torch.isfinite(value)):
        raise InputError(
            f"the loss of batch {number}",
            found=float(value.detach()),
            wanted="a finite number",
            remedy="Check the training data for NaN, and the loss.",
        )


def _check_gradients(gradients: Mapping[str, Tensor], number: int) -> None:
    import torch

    for name, gradient in gradients.items():
        if not bool(torch.isfinite(gradient).all()):
            raise InputError(
                f"the gradient of {name} in batch {number}",
                found="NaN or infinity",
                wanted="finite numbers",
                remedy="Check the loss, or load the model in a wider type.",
            )
