"""Golden requests: fixed inputs, the answers of two models to them, and how far an answer may be off.

Knows their rules; neither writes files (see `golden_file`) nor asks a server (see `checks`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.probing.protocol import to_tensor

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]

Kind = Literal["original", "built"]
"""Whose answer: the fp32 model's before compression, or that of the very model that is served."""

KINDS: tuple[Kind, Kind] = ("original", "built")
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Tolerance:
    """An answer `got` matches `want` iff |got - want| <= absolute + relative * |want|, element by element.

    Args:
        absolute: in the output's own unit.
        relative: share of |want|.
        source: how the two were derived, for the reader of a refusal.
    """

    absolute: float
    relative: float
    source: str

    def __post_init__(self) -> None:
        for name, value in (("absolute", self.absolute), ("relative", self.relative)):
            if not math.isfinite(value) or value < 0:
                raise InputError(f"tolerance: {name}", found=value, wanted="a finite number, 0 or more")

    def to_json(self) -> dict[str, Any]:
        """As in golden.json."""
        return {"absolute": self.absolute, "relative": self.relative, "source": self.source}


@dataclass(frozen=True, eq=False)
class GoldenRequest:
    """One request and both answers to it; arrays by tensor name."""

    id: str
    inputs: Arrays
    original: Arrays
    built: Arrays

    def answer(self, kind: Kind) -> Arrays:
        """The recorded answer of one of the two models."""
        return self.original if kind == "original" else self.built

    def to_json(self) -> dict[str, Any]:
        """As in golden.json."""
        return {
            "id": self.id,
            "inputs": _tensors(self.inputs),
            "original": _tensors(self.original),
            "built": _tensors(self.built),
        }


@dataclass(frozen=True, eq=False)
class GoldenSet:
    """All golden requests of a model with the tolerance of either kind of answer, by output.

    Raises:
        InputError: no request, a repeated id, or an answer whose output has no tolerance.
    """

    requests: tuple[GoldenRequest, ...]
    tolerance: Mapping[Kind, Mapping[str, Tolerance]]

    def __post_init__(self) -> None:
        ids = [r.id for r in self.requests]
        if not ids or len(set(ids)) != len(ids):
            raise InputError("golden requests", found=f"ids {ids}", wanted="one request or more, ids unique")
        for request in self.requests:
            for kind in KINDS:
                self._check_answer(request, kind)

    def _check_answer(self, request: GoldenRequest, kind: Kind) -> None:
        outputs, known = set(request.answer(kind)), set(self.tolerance.get(kind, {}))
        if not outputs or outputs - known:
            raise InputError(
                f"golden request {request.id}: its {kind} answer",
                found=f"outputs {sorted(outputs)}, tolerances for {sorted(known)}",
                wanted="at least one output and a tolerance for each",
            )

    def largest_absolute(self, kind: Kind) -> float:
        """The largest absolute tolerance of one kind of answer, over its outputs."""
        return max(t.absolute for t in self.tolerance[kind].values())

    def to_json(self) -> dict[str, Any]:
        """As in golden.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "requests": [r.to_json() for r in self.requests],
            "tolerance": {k: {o: t.to_json() for o, t in self.tolerance[k].items()} for k in KINDS},
        }


def _tensors(arrays: Arrays) -> list[dict[str, Any]]:
    return [to_tensor(name, array) for name, array in arrays.items()]
