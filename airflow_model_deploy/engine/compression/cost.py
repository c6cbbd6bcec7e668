"""Counts what a torch model weighs and computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ModelCost:
    """What a model weighs and computes.

    Args:
        parameters: elements of all parameters.
        multiplications: multiply-accumulates of Conv and Linear layers for one sample.
    """

    parameters: int
    multiplications: int


def model_cost(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> ModelCost:
    """Count parameters, and the multiplications of one sample by running the example."""
    import torch
    from torch import nn

    total = 0

    def count(module: nn.Module, _args: object, output: Tensor) -> None:
        nonlocal total
        weight: Tensor = module.weight  # type: ignore[assignment]
        # A position of the output costs one filter: in/groups * kernel multiplications.
        total += output.numel() * weight[0].numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(*example_inputs)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return ModelCost(sum(p.numel() for p in model.parameters()), total // max(1, example_inputs[0].shape[0]))


def output_tensors(value: object) -> list[Tensor]:
    """The tensors of whatever a forward returned, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for item in value.values() for t in output_tensors(item)]
    if isinstance(value, list | tuple):
        return [t for item in value for t in output_tensors(item)]
    return []
