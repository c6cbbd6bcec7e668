"""What a request's JSON object says of its tensors, checked against the servable; reads no values.

Clients that send tensors as bytes send the same JSON object again and again: its plan can be kept.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .request import RequestError
from .values import ELEMENTS, Element
from .wanted import parameters_of, wanted_outputs

if TYPE_CHECKING:
    from .servable import Servable, Tensor


@dataclass(slots=True)
class Part:
    """One input: a list from the JSON object, or so many bytes from there on behind it."""

    name: str
    element: Element
    shape: tuple[int, ...]
    data: Any
    start: int = 0


@dataclass(slots=True)
class Plan:
    """A request without its values; `tail_bytes` is how much has to follow the JSON object."""

    parts: tuple[Part, ...]
    tail_bytes: int
    all_bytes: bool
    outputs: tuple[str, ...]
    binary: frozenset[str]
    id: str | None
    rows: int
    key: Hashable


class Planner:
    """Checks the JSON objects of requests for one servable."""

    def __init__(self, servable: Servable) -> None:
        self._tensors = {t.name: (t, ELEMENTS[t.datatype]) for t in servable.inputs}
        self._outputs = tuple(t.name for t in servable.outputs)

    def plan(self, document: Any) -> Plan:
        """Check a JSON object.

        Raises:
            RequestError: naming the field that is wrong.
        """
        if type(document) is not dict:
            raise RequestError("the body: wanted a JSON object with 'inputs'")
        request_id = document.get("id")
        if request_id is not None and type(request_id) is not str:
            raise RequestError("'id': wanted a string")
        all_binary = parameters_of(document, "the body").get("binary_data_output", False)
        parts, size = self._parts(document.get("inputs"))
        outputs, binary = wanted_outputs(document, all_binary, self._outputs)
        rows, key = _fit(parts, outputs)
        all_bytes = all(part.data is None for part in parts)
        return Plan(parts, size, all_bytes, outputs, binary, request_id, rows, key)

    def plan_raw(self, size: int) -> Plan:
        """Plan for bytes alone: the shape is the declared one, its open size is what the bytes fill."""
        (tensor, element), *others = self._tensors.values()
        row = math.prod(d for d in tensor.shape if d != -1) * element.wire.itemsize
        if others or tensor.shape.count(-1) != 1 or not size or size % row:
            raise RequestError(
                f"inference-header-content-length 0 with {size} bytes: wanted whole rows of the only input of a "
                "model, with one open size; send the JSON object and its length"
            )
        shape = tuple(size // row if d == -1 else d for d in tensor.shape)
        parts = (Part(tensor.name, element, shape, None),)
        rows, key = _fit(parts, self._outputs)
        return Plan(parts, size, True, self._outputs, frozenset(self._outputs), None, rows, key)

    def _parts(self, records: Any) -> tuple[tuple[Part, ...], int]:
        if type(records) is not list:
            raise RequestError("'inputs': wanted a list of tensors")
        parts: dict[str, Part] = {}
        start = 0
        for i, record in enumerate(records):
            name = record.get("name") if type(record) is dict else None
            if type(name) is not str:
                raise RequestError(
                    f"inputs[{i}]: wanted an object with 'name', 'shape', 'datatype' and 'data'"
                )
            if name not in self._tensors:
                known = list(self._tensors)
                raise RequestError(f"input {name!r}: the model has no such input; it takes {known}")
            if name in parts:
                raise RequestError(f"input {name!r}: appears twice")
            parts[name], start = self._part(record, name, start)
        if len(parts) != len(self._tensors):
            raise RequestError(f"'inputs': missing {[n for n in self._tensors if n not in parts]}")
        return tuple(parts.values()), start

    def _part(self, record: dict[str, Any], name: str, start: int) -> tuple[Part, int]:
        """Return the input, and where the bytes of the next one start."""
        tensor, element = self._tensors[name]
        where = f"input {name!r}"
        if record.get("datatype") != tensor.datatype:
            found = record.get("datatype")
            raise RequestError(f"{where}: datatype: found {found!r}, wanted {tensor.datatype!r}")
        shape = _shape(record.get("shape"), tensor)
        size = parameters_of(record, where).get("binary_data_size")
        data = record.get("data")
        if size is None:
            if data is None:
                raise RequestError(f"{where}: 'data' is missing, and so is the parameter 'binary_data_size'")
            return Part(name, element, shape, data), start
        if data is not None:
            raise RequestError(f"{where}: wanted 'data' or 'binary_data_size', found both")
        wanted = math.prod(shape) * element.wire.itemsize
        if type(size) is not int or size != wanted:
            raise RequestError(
                f"{where}: 'binary_data_size' is {size!r}, {element.name} of shape {list(shape)} has {wanted} bytes"
            )
        return Part(name, element, shape, None, start), start + size


def _shape(value: Any, tensor: Tensor) -> tuple[int, ...]:
    if type(value) is not list or not all(type(d) is int and d > 0 for d in value):
        raise RequestError(f"input {tensor.name!r}: 'shape': wanted a list of positive integers")
    fits = len(value) == len(tensor.shape) and all(
        want in (-1, got) for got, want in zip(value, tensor.shape, strict=True)
    )
    if not fits:
        raise RequestError(
            f"input {tensor.name!r}: shape: found {value}, wanted {list(tensor.shape)} (-1: any)"
        )
    return tuple(value)


def _fit(parts: tuple[Part, ...], outputs: tuple[str, ...]) -> tuple[int, Hashable]:
    first = parts[0].shape
    if len(parts) == 1 and first:
        return first[0], (outputs, first[1:])
    if any(part.shape[:1] != first[:1] or not part.shape for part in parts):
        return 1, None
    # Names too: the order of the inputs is the sender's.
    return first[0], (outputs, *((part.name, part.shape[1:]) for part in sorted(parts, key=_name)))


def _name(part: Part) -> str:
    return part.name
