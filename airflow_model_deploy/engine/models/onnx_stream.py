"""ONNX files as streams: the graph in memory, the weights on disk until somebody asks for some rows.

Knows how tensors lie in files; knows nothing of operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.onnx_file import tensors_in
from airflow_model_deploy.engine.models.onnx_wire import (
    GRAPH,
    INITIALIZER,
    INLINE,
    RAW_DATA,
    refer,
    tag,
    varint,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np  # noqa: TC004 - no one asks these classes for their types at run time
    from onnx import GraphProto, ModelProto, TensorProto  # noqa: TC004

ONE_FILE = 1_500_000_000  # bytes of a model up to which it is one file; protobuf itself ends at 2 GB
BLOCK_BYTES = 8 << 20
_ALIGNMENT = 4096  # external tensors begin on a page, so that they can be mapped


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose rows are read when asked for.

    Args:
        name: in the graph.
        shape: its dimensions.
        data_type: ONNX's number of the element type.
        file: where its bytes lie; None where `proto` holds them.
        offset: of its first byte in that file.
        size: bytes.
        proto: the tensor as the graph has it.
    """

    name: str
    shape: tuple[int, ...]
    data_type: int
    file: Path | None
    offset: int
    size: int
    proto: TensorProto

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Rows begin..end of dimension 0, in the tensor's own type. The rest stays on disk."""
        import numpy as np
        import onnx

        if self.file is None:
            return np.asarray(onnx.numpy_helper.to_array(self.proto))[begin:end]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.data_type)
        width = math.prod(self.shape[1:])
        with self.file.open("rb") as stream:
            stream.seek(self.offset + begin * width * dtype.itemsize)
            found = np.fromfile(stream, dtype, (end - begin) * width)
        if found.size != (end - begin) * width:
            raise _cut_off(self.file, self.name)
        return found.reshape(end - begin, *self.shape[1:])

    def blocks(self, multiple: int = 1) -> Iterator[tuple[int, int, np.ndarray]]:
        """(begin, end, rows) in order: blocks of about 8 MB, each but the last a multiple of so many rows."""
        row_bytes = max(1, self.size // max(1, self.shape[0]))
        step = max(1, BLOCK_BYTES // (row_bytes * multiple)) * multiple
        for begin in range(0, self.shape[0], step):
            end = min(begin + step, self.shape[0])
            yield begin, end, self.rows(begin, end)

    def chunks(self) -> Iterator[bytes]:
        """The raw bytes, piece by piece; for tensors in files only."""
        if self.file is None:
            raise TypeError(f"{self.name} lies in the graph")
        left = self.size
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            while left:
                piece = stream.read(min(left, BLOCK_BYTES))
                if not piece:
                    raise _cut_off(self.file, self.name)
                left -= len(piece)
                yield piece


@dataclass(frozen=True)
class Stream:
    """The bytes of a tensor to come: how many, and a function that makes them piece by piece."""

    size: int
    chunks: Callable[[], Iterable[bytes | np.ndarray]]


def stored_tensor(tensor: TensorProto, folder: Path) -> StoredTensor:
    """An initializer of `open_onnx` as a tensor to read; `folder` is its file's."""
    import onnx

    shape = tuple(int(size) for size in tensor.dims)
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        size = len(tensor.raw_data) or onnx.numpy_helper.to_array(tensor).nbytes
        return StoredTensor(tensor.name, shape, tensor.data_type, None, 0, size, tensor)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = folder / location
    offset = int(entries.get("offset", 0))
    if not location or Path(location).is_absolute() or ".." in Path(location).parts:
        raise InputError(
            f"external data of {tensor.name}",
            found=f"location {location!r}",
            wanted="a plain file inside the model's folder",
            remedy="Save it beside the model.",
        )
    if not file.is_file():
        raise InputError(
            f"external data of {tensor.name}", found=f"{file} is missing", wanted="a file beside the model"
        )
    size = int(entries["length"]) if "length" in entries else _size(tensor)
    return StoredTensor(tensor.name, shape, tensor.data_type, file, offset, size, tensor)


def _size(tensor: TensorProto) -> int:
    """Bytes of a tensor's values as ONNX packs them."""
    import onnx

    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    bits = 4 if kind.endswith("INT4") or kind.startswith("FLOAT4") else 2 if kind.endswith("INT2") else 0
    bits = bits or 8 * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return (int(math.prod(tensor.dims)) * bits + 7) // 8


def fits_one_file(size: int) -> bool:
    """Whether a model of so many bytes is one file here; the weights of a larger one lie beside it."""
    return size <= ONE_FILE


def write_onnx(
    model: ModelProto,
    path: str | Path,
    *,
    folder: Path,
    streams: Mapping[str, Stream] | None = None,
    one_file: int | None = None,
) -> None:
    """Write a model whose weights are streams; the same bytes for the same model.

    Args:
        model: its initializers are headers: the data of one named in `streams` comes from there, external data
            from `folder`. Tensors elsewhere, as in the branches of an If, get theirs into the graph, in place.
        path: the file to write. Where all together is larger than `one_file`, weights go to `<path>.data`.
        folder: where the model's external data lies.
        streams: initializer -> its bytes.
        one_file: bytes up to which everything is one file; by default `ONE_FILE`.

    Raises:
        InputError: external data is missing or cut off, or too large where only initializers may be.
    """
    path, streams = Path(path), streams or {}
    _bring_in(model, folder)
    weights = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    parts = [_part(tensor, folder, streams.get(tensor.name)) for tensor in weights]
    if sum(stream.size for _, stream in parts if stream) > (ONE_FILE if one_file is None else one_file):
        parts = _written_beside(parts, path)
    _write_model(model, parts, path)


def _bring_in(model: ModelProto, folder: Path) -> None:
    """Give tensors that are no initializers of the main graph their bytes: usually a few, never a model's weights."""
    import onnx

    graph = model.graph
    elsewhere = (*graph.node, *graph.sparse_initializer, *model.functions, *model.training_info)
    total = 0
    for message in elsewhere:
        for tensor in tensors_in(message):
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            stored = stored_tensor(tensor, folder)
            total += stored.size
            if not fits_one_file(total):
                raise InputError(
                    f"external data of {tensor.name or 'a tensor'}, which is no initializer of the main graph",
                    found=f"{total} bytes in all such tensors",
                    wanted=f"at most {ONE_FILE}",
                    remedy="Make large constants, and weights inside of If and Loop, initializers of the graph.",
                )
            content = b"".join(stored.chunks())
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = content


def _part(tensor: TensorProto, folder: Path, stream: Stream | None) -> tuple[TensorProto, Stream | None]:
    import onnx

    if stream is None and tensor.data_location == onnx.TensorProto.EXTERNAL:
        stored = stored_tensor(tensor, folder)
        stream = Stream(stored.size, stored.chunks)
        if stored.size <= INLINE:  # a shape, say, which tools want to read in the graph
            whole = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            whole.raw_data = b"".join(stored.chunks())
            return whole, None
    if stream is None:
        return tensor, None
    header = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return header, stream


def _written_beside(
    parts: list[tuple[TensorProto, Stream | None]], path: Path
) -> list[tuple[TensorProto, Stream | None]]:
    """The parts with every stream written to `<path>.data` and named there."""
    beside, offset = path.with_name(f"{path.name}.data"), 0
    found: list[tuple[TensorProto, Stream | None]] = []
    with beside.open("wb") as file:
        for tensor, stream in parts:
            if stream is not None:
                offset = -(-offset // _ALIGNMENT) * _ALIGNMENT
                file.seek(offset)
                _pour(stream, file, tensor.name)
                refer(tensor, beside.name, offset, stream.size)
                offset += stream.size
            found.append((tensor, None))
    return found


def _write_model(model: ModelProto, parts: list[tuple[TensorProto, Stream | None]], path: Path) -> None:
    before, after = _around(model, GRAPH)
    graph_before, graph_after = _around(model.graph, INITIALIZER)
    heads = []
    for tensor, stream in parts:
        content = tensor.SerializeToString(deterministic=True)
        if stream is not None:
            content += tag(RAW_DATA) + varint(stream.size)
        size = len(content) + (stream.size if stream else 0)
        heads.append((tag(INITIALIZER) + varint(size) + content, stream, tensor.name))
    total = len(graph_before) + len(graph_after)
    total += sum(len(head) + (stream.size if stream else 0) for head, stream, _ in heads)
    with path.open("wb") as file:
        file.write(before + tag(GRAPH) + varint(total) + graph_before)
        for head, stream, name in heads:
            file.write(head)
            if stream is not None:
                _pour(stream, file, name)
        file.write(graph_after + after)


def _around(message: ModelProto | GraphProto, number: int) -> tuple[bytes, bytes]:
    """The message without one field: the bytes of the fields before it and after it."""
    parts = []
    for after in (False, True):
        part = type(message)()
        part.CopyFrom(message)
        for field in message.DESCRIPTOR.fields:
            if field.number == number or (field.number > number) != after:
                part.ClearField(field.name)
        parts.append(part.SerializeToString(deterministic=True))
    return parts[0], parts[1]


def _pour(stream: Stream, file: BinaryIO, name: str) -> None:
    import numpy as np

    begin = file.tell()
    for chunk in stream.chunks():
        file.write(chunk if isinstance(chunk, bytes) else chunk.reshape(-1).view(np.uint8).data)
    if file.tell() - begin != stream.size:
        raise ValueError(f"{name}: {file.tell() - begin} bytes came, {stream.size} were announced")


def _cut_off(file: Path, name: str) -> InputError:
    return InputError(
        f"external data of {name}",
        found=f"{file} ends too early",
        wanted="the complete file",
        remedy="Copy it again.",
    )
