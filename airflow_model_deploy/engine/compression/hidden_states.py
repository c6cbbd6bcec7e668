"""Asks a model for its outputs and for what its inner modules gave; matches the widths of two models' modules."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_model_deploy.engine.compression.forward import forward
from airflow_model_deploy.engine.compression.losses import output_names, wider
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn

_SHOWN = 12


class Answers(NamedTuple):
    """What a model answered to a batch: its outputs, and what its hidden modules gave, both by name."""

    outputs: dict[str, Tensor]
    hidden: dict[str, Tensor]


def ask(model: nn.Module, modules: Iterable[str], inputs: Mapping[str, Tensor]) -> tuple[Any, Answers]:
    """Return what forward returned, and the same by name with what the named modules gave last."""
    hidden: dict[str, Tensor] = {}
    with _recorded(model, modules, hidden):
        value = forward(model, dict(inputs))
    missing = [name for name in modules if name not in hidden]
    if missing:
        raise InputError(
            f"module {missing[0]!r} of {type(model).__name__} gives nothing to learn from",
            found="no call of it in a forward pass, or no tensor as its answer",
            wanted="a module whose forward returns a tensor, or a tuple or dict that begins with one",
            remedy="Name another module in `hidden`.",
        )
    return value, Answers(output_names(value), hidden)


@contextmanager
def _recorded(model: nn.Module, names: Iterable[str], hidden: dict[str, Tensor]) -> Iterator[None]:
    def keep(name: str, value: Any) -> None:
        first = _first_tensor(value)
        if first is not None:
            hidden[name] = first

    modules = dict(model.named_modules(remove_duplicate=False))
    handles = [
        modules[name].register_forward_hook(lambda _m, _i, value, name=name: keep(name, value))
        for name in dict.fromkeys(names)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_tensor(value: Any) -> Tensor | None:
    import torch

    if hasattr(value, "items"):
        value = tuple(dict(value.items()).values())
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    return value if isinstance(value, torch.Tensor) and value.is_floating_point() else None


def projections(
    hidden: Mapping[str, str], ours: Answers, theirs: Answers
) -> tuple[dict[str, int], nn.ModuleList]:
    """Return, for the pairs of different width, the dimension that differs, and the layers that make up for it."""
    from torch import nn

    changed: dict[str, int] = {}
    layers = nn.ModuleList()
    for name, teachers in hidden.items():
        mine, other = ours.hidden[name], theirs.hidden[teachers]
        if mine.shape == other.shape:
            continue
        places = [d for d in range(mine.ndim) if mine.ndim == other.ndim and mine.shape[d] != other.shape[d]]
        if len(places) != 1 or places[0] == 0:
            raise InputError(
                f"hidden states of {name!r} and {teachers!r} can't be compared",
                found=f"shapes {list(mine.shape)} and {list(other.shape)}",
                wanted="equal shapes, but for the size of one dimension after the first",
                remedy="Choose modules whose outputs correspond.",
            )
        changed[name] = places[0]
        layers.append(nn.Linear(mine.shape[places[0]], other.shape[places[0]], dtype=wider(mine).dtype))
    return changed, layers


def check_modules(place: str, model: nn.Module, names: Iterable[str]) -> None:
    """Refuse names of modules that a model doesn't have."""
    known = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for name in names:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, _SHOWN) or [other for other in known if other]
        raise InputError(
            f"`hidden` names a module that the {place} {type(model).__name__} doesn't have",
            found=name,
            wanted=f"one of {', '.join(near[:_SHOWN])}{' …' if len(near) > _SHOWN else ''}",
            remedy="Names are those of named_modules(): {student's module: teacher's module}.",
        )
