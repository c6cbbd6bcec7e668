"""Applies masks to a model and counts its zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression.selection import layer_weights
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


@dataclass(frozen=True)
class TensorZeros:
    """How many of one tensor's elements are zero."""

    name: str
    elements: int
    zeros: int


@dataclass(frozen=True)
class ZeroReport:
    """Zeros tensor by tensor, and over all of them."""

    tensors: tuple[TensorZeros, ...]

    @property
    def elements(self) -> int:
        """Elements over all tensors."""
        return sum(t.elements for t in self.tensors)

    @property
    def zeros(self) -> int:
        """Zeros over all tensors."""
        return sum(t.zeros for t in self.tensors)

    @property
    def fraction(self) -> float:
        """Zeros by elements."""
        return self.zeros / self.elements if self.elements else 0.0

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        tensors = [{"name": t.name, "elements": t.elements, "zeros": t.zeros} for t in self.tensors]
        return {"elements": self.elements, "zeros": self.zeros, "fraction": self.fraction, "tensors": tensors}


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set to zero, in place, what the masks drop."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != mask.shape:
                found = "no such parameter" if parameter is None else f"shape {tuple(parameter.shape)}"
                raise InputError(
                    f"mask {name}", found=found, wanted=f"a parameter of shape {tuple(mask.shape)}"
                )
            # Filled, not multiplied: -1 * 0 would leave a negative zero, and NaN * 0 a NaN.
            parameter.masked_fill_(~mask.to(parameter.device), 0)


def zero_masks(model: nn.Module) -> dict[str, Tensor]:
    """Masks that drop what is zero now, for the weights of a model that hold zeros."""
    masks = {name: weight.detach() != 0 for name, weight in layer_weights(model).items()}
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def joined_masks(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that drop whatever either of them drops."""
    joined = dict(first)
    for name, mask in second.items():
        joined[name] = joined[name] & mask.to(joined[name].device) if name in joined else mask
    return joined


def zero_report(weights: nn.Module | Mapping[str, Tensor]) -> ZeroReport:
    """Count the zeros of these tensors; of a model, those of its Conv and Linear weights."""
    import torch

    if isinstance(weights, torch.nn.Module):
        weights = layer_weights(weights)

    return ZeroReport(
        tuple(
            TensorZeros(name, w.numel(), w.numel() - int(torch.count_nonzero(w.detach())))
            for name, w in weights.items()
        )
    )


def zero_fraction(weights: nn.Module | Mapping[str, Tensor]) -> float:
    """Zeros by elements, over all these tensors; of a model, over its Conv and Linear weights."""
    return zero_report(weights).fraction
