"""Knows which dimension of a weight is its output and which its input; nothing of scores or masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.compression.selection import weight_owners
from airflow_model_deploy.engine.models import is_transposed_linear

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """How a weight is seen as rows, one for each output: [outputs, inputs of a group, *kernel].

    Args:
        transposed: stored as [inputs, outputs of a group, *kernel], as transposed convolutions are.
        groups: blocks of outputs that see different inputs.
    """

    transposed: bool = False
    groups: int = 1

    def rows(self, weight: Tensor) -> Tensor:
        """The weight, or a tensor of its shape, as [outputs, inputs of a group, *kernel]."""
        return self._swapped(weight) if self.transposed else weight

    def back(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`."""
        return self._swapped(rows) if self.transposed else rows

    def _swapped(self, tensor: Tensor) -> Tensor:
        first, second, *kernel = tensor.shape
        blocks = tensor.reshape(self.groups, first // self.groups, second, *kernel).transpose(1, 2)
        return blocks.reshape(self.groups * second, first // self.groups, *kernel)


def weight_layouts(model: nn.Module) -> dict[str, Layout]:
    """The layout of every weight that pruning may touch, by name."""
    return {name: layer_layout(owner) for name, (owner, _) in weight_owners(model).items()}


def layer_layout(layer: nn.Module) -> Layout:
    """The layout of a layer's weight."""
    from torch import nn

    transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
    is_transposed = is_transposed_linear(layer) or isinstance(layer, transposed)
    return Layout(is_transposed, int(getattr(layer, "groups", 1)))
