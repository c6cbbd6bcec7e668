"""Reads what an ONNX file says about itself; computes nothing with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.onnx_wire import hollow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto, TensorProto, ValueInfoProto

_SMALL = 8 << 20  # bytes of a file that may as well be parsed as it is


def load_onnx(path: str | Path, *, external_data: bool = False) -> ModelProto:
    """Parse an ONNX file; InputError where it is none. Weights in other files stay there unless asked for."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    if not path.is_file():
        raise InputError(f"model {path}", found="no such file", wanted="an ONNX file")
    try:
        model = onnx.load(path, load_external_data=external_data)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise _incomplete(path, error) from error
    return _with_nodes(path, model)


def open_onnx(path: str | Path) -> ModelProto:
    """The graph of an ONNX file, with its larger weights named as external data: of the same file if need be.

    What a gigabyte of weights costs here is a few kilobytes. InputError where it is no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    if not path.is_file() or path.stat().st_size < _SMALL:
        return load_onnx(path)
    try:
        with path.open("rb") as stream:
            content = hollow(stream, path.stat().st_size, path.name)
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError, EOFError) as error:
        raise _incomplete(path, error) from error
    return _with_nodes(path, model)


def _incomplete(path: Path, error: Exception) -> InputError:
    return InputError(
        f"model {path}",
        found=f"{path.stat().st_size} bytes that are no complete ONNX model ({error})",
        wanted="an ONNX file",
        remedy="Export or copy it again.",
    )


def _with_nodes(path: Path, model: ModelProto) -> ModelProto:
    if not model.graph.node:
        raise InputError(f"model {path}", found="a graph without nodes", wanted="an ONNX model")
    return model


def save_onnx(model: ModelProto, path: str | Path) -> None:
    """Write a model as one file, the same bytes for the same model."""
    Path(path).write_bytes(model.SerializeToString(deterministic=True))


def file_size(path: str | Path) -> int:
    """Bytes of a model file together with the external data that it names."""
    path = Path(path)
    others = {path.parent / location for location, _, _ in external_locations(open_onnx(path))} - {path}
    return path.stat().st_size + sum(other.stat().st_size for other in others)


def read_signature(path: str | Path) -> Signature:
    """Inputs and outputs by name, shape and type.

    Dimensions that may vary keep the name that the graph gives them; one without a name is called
    "batch" where it comes first, "<tensor>_dim<i>" elsewhere.
    """
    graph = open_onnx(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    return Signature(
        inputs=tuple(_spec(value) for value in graph.input if value.name not in stored),
        outputs=tuple(_spec(value) for value in graph.output),
    )


def _spec(value: ValueInfoProto) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        raise InputError(
            f"tensor {value.name}",
            found=f"{value.type.WhichOneof('value')} without a known rank",
            wanted="a tensor whose rank the graph states",
            remedy="Export the model with tensors of known rank as inputs and outputs.",
        )
    names: dict[int, str] = {
        onnx.TensorProto.STRING: "object",
        onnx.TensorProto.BFLOAT16: "bfloat16",
    }
    dtype = names.get(tensor.elem_type) or str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    shape: list[int | str] = []
    for index, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            shape.append(dim.dim_value)
        else:
            shape.append(dim.dim_param or ("batch" if index == 0 else f"{value.name}_dim{index}"))
    return TensorSpec(value.name, tuple(shape), dtype)


def external_locations(model: ModelProto) -> list[tuple[str, int, int | None]]:
    """(location, offset, length) of every tensor whose data lies in another file, wherever it hides."""
    import onnx

    external = onnx.TensorProto.EXTERNAL
    found = [_external_entry(tensor) for tensor in tensors_in(model) if tensor.data_location == external]
    return sorted(found, key=lambda entry: entry[:2])


def tensors_in(message: Any) -> Iterator[TensorProto]:
    """Every tensor in a message of ONNX: initializers, attributes, those of graphs in graphs."""
    import onnx

    waiting: list[Any] = [message]
    while waiting:
        found = waiting.pop()
        if isinstance(found, onnx.TensorProto):
            yield found
            continue
        for field, value in found.ListFields():
            if field.type == field.TYPE_MESSAGE:
                waiting.extend(value if field.is_repeated else [value])


def _external_entry(tensor: Any) -> tuple[str, int, int | None]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not all(isinstance(text, str) for pair in entries.items() for text in pair):
        raise InputError(
            f"external data of {tensor.name}", found="a location that is no text", wanted="text in UTF-8"
        )
    try:
        length = int(entries["length"]) if "length" in entries else None
        return entries.get("location", ""), int(entries.get("offset", 0)), length
    except ValueError as error:
        raise InputError(
            f"external data of {tensor.name}", found=str(error), wanted="whole numbers"
        ) from error
