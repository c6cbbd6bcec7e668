"""Selects what compression may touch, by patterns on names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import is_transposed_linear

_OTHER_MATRICES = ("bias_k", "bias_v")  # attention's; biases by what they do, though not by their shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn


def prunable_weights(
    model: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """The weights that pruning may touch: those of every Conv*, Linear, recurrent and attention layer.

    Args:
        model: any torch model; a weight shared by two modules appears once.
        include: shell-style patterns on names such as "features.0.weight".
        exclude: patterns of names to leave alone, e.g. "*head*".
    """
    found = layer_weights(model)
    chosen = matching(include, found, "include") - matching(exclude, found, "exclude")
    if not chosen:
        raise InputError(
            f"weights to prune in {type(model).__name__}",
            found=f"none of {len(found)} candidates left",
            wanted="at least one weight of a Conv, Linear, recurrent or attention layer",
            remedy="Widen include or narrow exclude.",
        )
    return {name: weight for name, weight in found.items() if name in chosen}


def matching(patterns: Iterable[str], names: Iterable[str], label: str) -> set[str]:
    """The names that any pattern matches; a pattern that matches none is an InputError."""
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if fnmatchcase(name, pattern)}
        if not hits and names:
            shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
            raise InputError(
                f"{label} pattern {pattern!r}",
                found="no match",
                wanted=f"a match among {shown}",
                remedy="Correct the pattern, or leave it out.",
            )
        found |= hits
    return found


def layer_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Matrices and filters of every Conv*, Linear, recurrent and attention layer by name, each shared one once.

    Embeddings are left out: a row that is small belongs to a rare word, not to an unimportant one.
    """
    return {name: weight for name, (_, weight) in weight_owners(model).items()}


def weight_owners(model: nn.Module) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """The weights of `layer_weights`, each with the layer that it is found in first."""
    from torch import nn

    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = (*convolutions, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
    found: dict[str, tuple[nn.Module, nn.Parameter]] = {}
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        known = isinstance(module, (*layers, nn.RNNBase, nn.MultiheadAttention))
        if not known and not is_transposed_linear(module):
            continue
        for name, weight in module.named_parameters(recurse=False):
            if name in _OTHER_MATRICES or weight.dim() < 2 or id(weight) in seen:
                continue
            seen.add(id(weight))
            found[f"{module_name}.{name}" if module_name else name] = (module, weight)
    return found
