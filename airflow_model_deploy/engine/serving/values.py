"""A JSON list as a numpy array of one datatype, and back to bytes of a declared order; knows no request.

Numbers are packed by `struct`: five times faster than `numpy.array(list)`, it refuses what is no number, and it
never builds an array wider than the one that was asked for, whatever the list holds.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from .datatypes import NUMPY_NAMES, STRUCT_CODES

Array = np.ndarray[Any, Any]


class ValuesError(Exception):
    """Values that the tensor can't hold; `not_finite` where one is null, NaN or too large."""

    def __init__(self, message: str, *, not_finite: bool = False) -> None:
        super().__init__(message)
        self.not_finite = not_finite


@dataclass(frozen=True)
class Element:
    """One datatype, as numpy, struct and the wire know it; the wire is little-endian."""

    name: str
    dtype: np.dtype[Any]
    wire: np.dtype[Any]
    code: str
    native: bool


def _element(name: str) -> Element:
    dtype = np.dtype(NUMPY_NAMES[name])
    wire = dtype.newbyteorder("<")
    return Element(name, dtype, wire, STRUCT_CODES[name], wire.isnative)


ELEMENTS = {name: _element(name) for name in NUMPY_NAMES}


def from_json(data: Any, element: Element, shape: tuple[int, ...], *, bools: bool = True) -> Array:
    """Make an array of a flat list, or of one nested as `shape` says.

    Args:
        data: decoded JSON.
        element: what its values are.
        shape: what it has to fill.
        bools: whether a true or false may be among the data.

    Raises:
        ValuesError: naming what is wrong with the list.
    """
    if type(data) is not list:
        raise ValuesError("'data': wanted a list")
    if data and type(data[0]) is list and len(shape) > 1:
        data = _flatten(data, shape)
    size = math.prod(shape)
    if len(data) != size:
        raise ValuesError(f"'data' has {len(data)} elements, shape {list(shape)} has {size}")
    kind = element.dtype.kind
    if kind == "b":
        _refuse_types(data, {bool}, f"true and false only, as {element.name} says")
    elif kind != "f":
        _refuse_types(data, {int}, "whole numbers only")
    elif bools and bool in set(map(type, data)):
        raise ValuesError("'data': wanted numbers only (true and false are none)")
    array = _packed(data, element)
    if kind == "f" and not np.isfinite(array).all():
        raise ValuesError(f"'data': a value is beyond the range of {element.dtype}", not_finite=True)
    return array.reshape(shape)


def from_bytes(body: bytes | bytearray, start: int, element: Element, shape: tuple[int, ...]) -> Array:
    """Look at little-endian bytes as an array, in place; its address may be an odd one.

    Raises:
        ValuesError: a BOOL is neither 0 nor 1.
    """
    count = math.prod(shape)
    if element.dtype.kind == "b" and np.frombuffer(body, np.uint8, count, start).max(initial=0) > 1:
        raise ValuesError("binary data: a BOOL is a byte 0 or 1")
    array = np.frombuffer(body, element.wire, count, start).reshape(shape)
    return array if element.native else array.astype(element.dtype)


def to_bytes(array: Array, element: Element) -> memoryview:
    """Return the little-endian bytes, row by row."""
    return np.ascontiguousarray(array, dtype=element.wire).reshape(-1).view(np.uint8).data


def _flatten(data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    found = [len(data)]
    for wanted in shape[1:]:
        if not all(type(row) is list for row in data):
            break
        lengths = set(map(len, data))
        if len(lengths) > 1:
            raise ValuesError("'data': the nested lists have different lengths")
        found += lengths
        if lengths != {wanted}:
            break
        data = list(chain.from_iterable(data))
    if tuple(found) != shape:
        raise ValuesError(f"'data' is nested as {found}, 'shape' says {list(shape)}")
    return data


def _packed(data: list[Any], element: Element) -> Array:
    try:
        packed = _packer(element.code, len(data)).pack(*data)
    except (struct.error, TypeError, OverflowError) as error:
        raise _refusal(data, element) from error
    return np.frombuffer(packed, element.dtype)


@lru_cache(maxsize=256)
def _packer(code: str, count: int) -> struct.Struct:
    return struct.Struct(f"={count}{code}" if code == "e" else f"@{count}{code}")


def _refusal(data: list[Any], element: Element) -> ValuesError:
    types = set(map(type, data))
    if type(None) in types:
        return ValuesError("'data': wanted numbers only (null is not one)", not_finite=True)
    if not types <= {int, float, bool}:
        return ValuesError("'data': wanted numbers only")
    return ValuesError(
        f"'data': a value is beyond the range of {element.dtype}", not_finite=element.dtype.kind == "f"
    )


def _refuse_types(data: list[Any], wanted: set[type], words: str) -> None:
    if data and set(map(type, data)) != wanted:
        raise ValuesError(f"'data': wanted {words}")
