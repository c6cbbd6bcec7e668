"""What a model takes and gives: names, shapes and types of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Args:
        name: the tensor's name in the ONNX graph and in requests.
        shape: one entry a dimension; an int is fixed, a str names a dimension that may vary ("batch").
        dtype: numpy's name of the element type ("float32").
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TensorSpec:
        """Read what `to_json` wrote."""
        return cls(name=value["name"], shape=tuple(value["shape"]), dtype=value["dtype"])


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model, in the order of its graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def fixed_batch(self) -> int | None:
        """How many samples every call must bring; None where that may vary."""
        return next((t.shape[0] for t in self.inputs if t.shape and isinstance(t.shape[0], int)), None)

    @property
    def dynamic(self) -> dict[str, dict[int, str]]:
        """What may vary besides the batch: input -> dimension -> the dimension's name."""
        named = {
            t.name: {i: size for i, size in enumerate(t.shape) if i and isinstance(size, str)}
            for t in self.inputs
        }
        return {name: dimensions for name, dimensions in named.items() if dimensions}

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {"inputs": [t.to_json() for t in self.inputs], "outputs": [t.to_json() for t in self.outputs]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Signature:
        """Read what `to_json` wrote."""
        return cls(
            inputs=tuple(TensorSpec.from_json(t) for t in value["inputs"]),
            outputs=tuple(TensorSpec.from_json(t) for t in value["outputs"]),
        )
