"""Calls a model's forward with an example: by name where forward has those names, else in the example's order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    Example = tuple[Tensor, ...] | Mapping[str, Tensor]


def takes_names(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether forward can be called with arguments of just these names."""
    try:
        inspect.signature(model.forward).bind(**dict.fromkeys(names))
    except (TypeError, ValueError):  # other names; or a compiled forward without a signature
        return False
    return True


def forward(model: nn.Module, example: Example) -> Any:
    """Call the model with an example."""
    if not isinstance(example, Mapping):
        return model(*example)
    return model(**example) if takes_names(model, example) else model(*example.values())
