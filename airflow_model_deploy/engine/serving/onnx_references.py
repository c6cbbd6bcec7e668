"""Finds what an ONNX file refers to: operators, and files that hold its weights. Judges none of it.

Reads protobuf's wire format from a mapped file: of weights no byte is touched, whatever their size, and what is
nested is walked with a stack of its own. Where two readers of protobuf could differ, it refuses or reports more.
"""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEPTH = 100  # messages in messages, as protobuf itself allows
FIELDS = 20_000_000  # some 20 s of work; a graph of 100,000 nodes has a few million
_TEXT = 4096  # bytes of a name
_ENTRIES = 16  # of one tensor's external data

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING, _ENTRY = range(9)
# Message -> field number -> the message that the field holds, as onnx.proto has it.
_CHILDREN: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
    _ENTRY: {},
}
# Message -> field number -> what its text is called here.
_TEXTS: dict[int, dict[int, str]] = {
    _NODE: {4: "op_type", 7: "domain"},
    _FUNCTION: {1: "op_type", 10: "domain"},
    _TENSOR: {8: "name"},
    _ENTRY: {1: "key", 2: "value"},
}
_DATA_LOCATION = 14
_LENGTH_DELIMITED = 2
# Numbers of an attribute, one after the other: a forest of trees has millions of them.
_NUMBERS = re.compile(
    b"(?:[\\x08\\x10\\x18\\x20\\x28\\x30\\x38\\x40\\x48\\x50\\x58\\x60\\x68\\x70\\x78][\\x80-\\xff]{0,9}[\\x00-\\x7f]"
    b"|[\\x0d\\x15\\x1d\\x25\\x2d\\x35\\x3d\\x45\\x4d\\x55\\x5d\\x65\\x6d\\x75\\x7d][\\x00-\\xff]{4})*+"
)
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_KEYS = {"location", "offset", "length", "checksum"}


class BadOnnxError(Exception):
    """The file is no complete ONNX model, or one that no tool writes."""


@dataclass(frozen=True)
class Operator:
    """A node's operator; "" is ONNX's own domain."""

    domain: str
    op_type: str


@dataclass(frozen=True)
class Function:
    """An operator that the model itself defines."""

    domain: str
    op_type: str


@dataclass(frozen=True)
class ExternalData:
    """Where a tensor's bytes lie: relative to the model's folder; no length means up to the end of the file."""

    tensor: str
    location: str
    offset: int
    length: int | None


@dataclass
class _Message:
    """A message that is being read, and what was found in it so far."""

    kind: int
    at: int
    end: int
    texts: dict[str, str] = field(default_factory=dict)
    entries: list[tuple[str, str]] = field(default_factory=list)
    external: bool = False


def references(path: Path) -> Iterator[ExternalData | Operator | Function]:
    """Every operator, function and external tensor, wherever in the model it hides, in no particular order.

    Raises:
        BadOnnxError: naming what is wrong.
        OSError: the file can't be read.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if not size:
            raise BadOnnxError("is empty")
        with mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) as content:
            yield from _walk(content, size)


def _walk(content: mmap.mmap, size: int) -> Iterator[ExternalData | Operator | Function]:
    stack = [_Message(_MODEL, 0, size)]
    graphs, left = 0, FIELDS
    while stack:
        message = stack[-1]
        if message.at == message.end:
            stack.pop()
            if message.kind == _ENTRY:
                _add_entry(stack[-1], message.texts)
            yield from _found(message)
            continue
        left -= 1
        if left < 0:
            raise BadOnnxError(f"has more than {FIELDS} fields")
        child = _next(content, message)
        if child is not None:
            if len(stack) == DEPTH:
                raise BadOnnxError(f"is nested more than {DEPTH} deep")
            graphs += child.kind == _GRAPH
            stack.append(child)
    if not graphs:
        raise BadOnnxError("is no ONNX model: it has no graph")


def _next(content: mmap.mmap, message: _Message) -> _Message | None:
    """Read a field of the message; return it where it is a message to be read, too."""
    key, begin = _varint(content, message.at, message.end)
    if key > 0xFFFFFFFF:  # others cut it off to 32 bits, and find another field
        raise BadOnnxError(
            f"is no ONNX model: it has a field number of more than 32 bits at byte {message.at}"
        )
    number, wire = key >> 3, key & 7
    if wire == _LENGTH_DELIMITED:
        size, begin = _varint(content, begin, message.end)
        end = begin + size
    elif wire == 0:
        value, end = _varint(content, begin, message.end)
        if message.kind == _TENSOR and number == _DATA_LOCATION and value:
            message.external = True
    elif wire in (1, 5):
        end = begin + (8 if wire == 1 else 4)
    else:
        raise BadOnnxError(f"is no ONNX model: it has a field of wire type {wire} at byte {message.at}")
    if end > message.end or number == 0:
        raise BadOnnxError(f"is cut off or damaged at byte {message.at}")
    message.at = end
    if wire != _LENGTH_DELIMITED:
        if message.kind == _ATTRIBUTE:
            run = _NUMBERS.match(content, end, message.end)
            message.at = run.end() if run else end
        return None
    called = _TEXTS.get(message.kind, {}).get(number)
    if called is not None:
        message.texts[called] = _text(content, begin, end)
    kind = _CHILDREN[message.kind].get(number)
    return None if kind is None else _Message(kind, begin, end)


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and where it ends."""
    value = 0
    for place in range(10):
        if at + place >= end:
            raise BadOnnxError(f"is cut off or damaged at byte {at}")
        byte = content[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise BadOnnxError(f"is no ONNX model: it has a number of more than 10 bytes at byte {at}")


def _text(content: mmap.mmap, begin: int, end: int) -> str:
    if end - begin > _TEXT:
        raise BadOnnxError(f"has a name of {end - begin} bytes at byte {begin}, wanted {_TEXT} at most")
    return content[begin:end].decode(errors="backslashreplace")


def _add_entry(tensor: _Message, texts: dict[str, str]) -> None:
    if len(tensor.entries) == _ENTRIES:
        raise BadOnnxError(f"has more than {_ENTRIES} entries of external data for one tensor")
    tensor.entries.append((texts.get("key", ""), texts.get("value", "")))


def _found(message: _Message) -> Iterator[ExternalData | Operator | Function]:
    if message.kind in (_NODE, _FUNCTION):
        domain = message.texts.get("domain", "")
        domain = "" if domain == "ai.onnx" else domain
        kind = Operator if message.kind == _NODE else Function
        yield kind(domain, message.texts.get("op_type", ""))
    elif message.kind == _TENSOR and (message.external or message.entries):
        yield _external(message)


def _external(message: _Message) -> ExternalData:
    tensor, values = message.texts.get("name", ""), dict(message.entries)
    thing = f"has external data of tensor {tensor!r} with"
    if len(values) != len(message.entries):
        raise BadOnnxError(f"{thing} a key given twice: {sorted(key for key, _ in message.entries)}")
    if not values.get("location"):
        raise BadOnnxError(f"{thing} no location")
    unknown = sorted(values.keys() - _KEYS)
    if unknown:
        raise BadOnnxError(f"{thing} the keys {unknown}, wanted only {sorted(_KEYS)}")
    numbers = {key: values[key] for key in ("offset", "length") if key in values}
    for key, value in numbers.items():
        if not _WHOLE_NUMBER.fullmatch(value):
            raise BadOnnxError(f"{thing} {key} {value!r}, wanted a whole number of bytes")
    length = int(numbers["length"]) if "length" in numbers else None
    return ExternalData(tensor, values["location"], int(numbers.get("offset", "0")), length)
