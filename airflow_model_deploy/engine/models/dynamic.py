"""Dimensions that vary besides the batch: checks what an author named, and makes an example of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    Dynamic = Mapping[str, Mapping[int, str]]

BATCH = "batch"


def dynamic_sizes(dynamic: Dynamic, example: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Size of every named dimension in an example.

    Args:
        dynamic: input -> dimension (1 or more) -> the dimension's name; the same name is the same size.
        example: input -> array.
    """
    sizes: dict[str, int] = {}
    for name, dimensions in dynamic.items():
        if name not in example:
            raise InputError(
                f"dynamic dimensions of {name!r}", found="no such input", wanted=f"one of {sorted(example)}"
            )
        shape = example[name].shape
        for place, label in dimensions.items():
            if not 1 <= place < len(shape) or label == BATCH:
                raise InputError(
                    f"dynamic dimension {place} of {name!r}, named {label!r}",
                    found=f"shape {shape}",
                    wanted=f"a dimension from 1 to {len(shape) - 1}, named otherwise than {BATCH!r}",
                    remedy="Dimension 0 is the batch, which varies by itself; name the others.",
                )
            if sizes.setdefault(label, shape[place]) != shape[place]:
                raise InputError(
                    f"dynamic dimension {label!r}",
                    found=f"sizes {sizes[label]} and {shape[place]} in the example",
                    wanted="one size wherever it is named",
                    remedy="Give different dimensions different names.",
                )
    return sizes


def with_other_size(dynamic: Dynamic, example: Mapping[str, np.ndarray], label: str) -> dict[str, np.ndarray]:
    """The example with one named dimension a little shorter (from size 2 down: longer, by repetition)."""
    import numpy as np

    size = dynamic_sizes(dynamic, example)[label]
    places = np.arange(size - 1 if size > 2 else size + 1) % size
    changed = dict(example)
    for name, dimensions in dynamic.items():
        for place, found in dimensions.items():
            if found == label:
                changed[name] = np.ascontiguousarray(np.take(changed[name], places, axis=place))
    return changed
