"""Protobuf's wire format as far as ONNX files need it, to read a graph without its weights. Knows no operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import TensorProto

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # field numbers in ModelProto, GraphProto and TensorProto
INLINE = 4096  # bytes up to which a tensor stays in the graph


def hollow(stream: BinaryIO, size: int, location: str) -> bytes:
    """The model's bytes with the raw data of its initializers left out and named as external."""
    found = []
    for field, wire, begin, end in _fields(stream, 0, size):
        if field == GRAPH and wire == 2:
            inner = _read_graph(stream, begin, end, location)
            found.append(tag(GRAPH) + varint(len(inner)) + inner)
        else:
            found.append(_copied(stream, field, wire, begin, end))
    return b"".join(found)


def _read_graph(stream: BinaryIO, begin: int, end: int, location: str) -> bytes:
    found = []
    for field, wire, first, last in _fields(stream, begin, end):
        if field == INITIALIZER and wire == 2 and last - first > INLINE:
            inner = _read_tensor(stream, first, last, location)
            found.append(tag(INITIALIZER) + varint(len(inner)) + inner)
        else:
            found.append(_copied(stream, field, wire, first, last))
    return b"".join(found)


def _read_tensor(stream: BinaryIO, begin: int, end: int, location: str) -> bytes:
    import onnx

    found = []
    for field, wire, first, last in _fields(stream, begin, end):
        if field == RAW_DATA and wire == 2:
            reference = onnx.TensorProto()
            refer(reference, location, first, last - first)
            found.append(reference.SerializeToString())
        else:
            found.append(_copied(stream, field, wire, first, last))
    return b"".join(found)


def _fields(stream: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, first byte of the content, end) of a message; the caller may move the stream."""
    at = begin
    while at < end:
        stream.seek(at)
        key = _read_varint(stream)
        field, wire = key >> 3, key & 7
        if wire == 2:
            size = _read_varint(stream)
            first = stream.tell()
            at = first + size
        else:
            first = stream.tell()
            at = first + _fixed_size(stream, wire)
        if at > end or field == 0:
            raise EOFError(f"a field of {at - first} bytes at {first}, where {end - first} are left")
        yield field, wire, first, at


def _fixed_size(stream: BinaryIO, wire: int) -> int:
    if wire == 0:
        begin = stream.tell()
        _read_varint(stream)
        return stream.tell() - begin
    if wire in (1, 5):
        return 8 if wire == 1 else 4
    raise ValueError(f"wire type {wire}")


def _copied(stream: BinaryIO, field: int, wire: int, begin: int, end: int) -> bytes:
    stream.seek(begin)
    content = stream.read(end - begin)
    return varint(field << 3 | wire) + (varint(len(content)) if wire == 2 else b"") + content


def _read_varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError("the file ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than 10 bytes")


def varint(value: int) -> bytes:
    """A number as 7 bits a byte, lowest first."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def tag(field: int) -> bytes:
    """What stands before a field of bytes."""
    return varint(field << 3 | 2)


def refer(tensor: TensorProto, location: str, offset: int, size: int) -> None:
    """Name a tensor's bytes as external data."""
    import onnx

    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", size)):
        tensor.external_data.add(key=key, value=str(value))
