"""Measures what a model's layers get to see on real batches: sums of squares of their inputs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression.gradients import batches, call
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

    from airflow_model_deploy.engine.models import Dataset

_MASKS = ("attention_mask", "mask")


def input_square_sums(
    model: nn.Module, weights: Mapping[str, Tensor], data: Dataset, *, batch_size: int = 32
) -> dict[str, Tensor]:
    """By weight, the sum of squares of every input that it is multiplied with, over all positions and batches.

    Of a convolution, every position of the kernel has sums of its own: what stride and padding let it see.
    Positions that an input "attention_mask" or "mask" [batch, sequence] marks with 0 are left out of layers that
    see [batch, sequence, features].

    Args:
        model: run in eval mode without gradients; left as it was.
        weights: of Linear, convolution and GPT `Conv1D` layers of this model.
        data: inputs; targets are not read.
        batch_size: samples a batch.

    Returns:
        By weight's name a float64 tensor [groups, inputs of a group, *kernel].
    """
    import torch

    sums: dict[str, Tensor] = {}
    names = {id(weight): name for name, weight in weights.items()}
    mask: Tensor | None = None

    def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen = args[0] if args else next(iter(kwargs.values()))
        name = names[id(layer.weight)]
        found = _square_sums(layer, seen.detach().double(), mask).cpu()
        sums[name] = sums[name] + found if name in sums else found

    modes = {module: module.training for module in model.modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack, torch.no_grad():
        for module, mode in modes.items():
            stack.callback(setattr, module, "training", mode)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)  # it would run past the hooks
        for layer in _layers(model, names):
            stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
        model.eval()
        for feed, _ in batches(data, batch_size):
            mask = _mask(feed)
            call(model, feed)
    _check_seen(weights, sums)
    return sums


def _layers(model: nn.Module, names: Iterable[int]) -> list[nn.Module]:
    """The layers that are called with these weights: their one input is what the weight is multiplied with."""
    from torch import nn

    return [
        module
        for module in model.modules()
        if id(getattr(module, "weight", None)) in names
        and not isinstance(module, nn.RNNBase | nn.MultiheadAttention)
    ]


def _mask(feed: Mapping[str, Tensor]) -> Tensor | None:
    for name in _MASKS:
        if name in feed and feed[name].dim() == 2:
            return feed[name] != 0
    return None


def _square_sums(layer: nn.Module, seen: Tensor, mask: Tensor | None) -> Tensor:
    import torch
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    if mask is not None and seen.dim() > 2 and seen.shape[:2] == mask.shape:
        # Filled, not multiplied: padding may hold anything, NaN too.
        seen = seen.masked_fill(~mask.reshape(*mask.shape, *([1] * (seen.dim() - 2))), 0)
    squares = seen.square()
    if not isinstance(layer, _ConvNd):
        return squares.reshape(-1, squares.shape[-1]).sum(0)[None]
    kernel = layer.kernel_size
    if squares.dim() == len(kernel) + 1:
        squares = squares[None]  # a sample without its batch dimension
    groups, channels = layer.groups, squares.shape[1]
    if isinstance(layer, _ConvTransposeNd):
        sums = squares.transpose(0, 1).flatten(1).sum(1)  # each input meets every position of the kernel
        return sums.reshape(groups, channels // groups, *([1] * len(kernel))).repeat(1, 1, *kernel)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    squares = torch.nn.functional.pad(squares, _padding(layer), mode=mode)
    return _kernel_sums(squares, layer).reshape(groups, channels // groups, *kernel)


def _padding(layer: Any) -> list[int]:
    """What forward adds before and behind each dimension, the last dimension first, as `pad` takes it."""
    if layer.padding == "valid":
        return [0, 0] * len(layer.kernel_size)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(size, size) for size in layer.padding]
    return [size for pair in reversed(pairs) for size in pair]


def _kernel_sums(padded: Tensor, layer: Any) -> Tensor:
    """For each channel and position of the kernel, the sum over all places that the kernel is moved to."""
    import itertools

    import torch

    sums = torch.zeros(padded.shape[1], *layer.kernel_size, dtype=padded.dtype)
    sizes = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, dilation in zip(
            padded.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True
        )
    ]
    for place in itertools.product(*map(range, layer.kernel_size)):
        view = padded
        for axis, (offset, count) in enumerate(zip(place, sizes, strict=True)):
            begin, stride = offset * layer.dilation[axis], layer.stride[axis]
            view = view.narrow(axis + 2, begin, (count - 1) * stride + 1)
            everything: list[slice] = [slice(None)] * (axis + 2)
            view = view[(*everything, slice(None, None, stride))]
        where: tuple[Any, ...] = (slice(None), *place)
        sums[where] = view.transpose(0, 1).flatten(1).sum(1)
    return sums


def _check_seen(weights: Mapping[str, Tensor], sums: Mapping[str, Tensor]) -> None:
    import torch

    unseen = [name for name in weights if name not in sums]
    if unseen:
        raise InputError(
            f"inputs of {', '.join(unseen[:4])}{', ...' if len(unseen) > 4 else ''}",
            found="no layer that is called with this weight alone",
            wanted="Linear or convolution layers that forward calls",
            remedy="Exclude them (recurrent and nn.MultiheadAttention layers can't be seen into), or prune by"
            " magnitude.",
        )
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise InputError(
                f"inputs of {name}",
                found="NaN or infinity",
                wanted="finite activations",
                remedy="Check the training data and the model's weights.",
            )
