"""Open Inference Protocol v2 in JSON, to numpy and back; knows no HTTP.

JSON has no NaN and no infinity. An output that holds one is therefore refused (422, naming the tensor): null
in its place would be a silent lie, and 500 would blame the server for what this model gives for this request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from .datatypes import NUMPY_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .servable import Servable, Tensor

Array = np.ndarray[Any, Any]


class RequestError(Exception):
    """A request that can't be answered, told so that its sender can correct it.

    Args:
        message: what is wrong.
        status: the HTTP status.
        reason: a short, fixed word for metrics.
    """

    def __init__(self, message: str, *, status: int = 400, reason: str = "invalid") -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Request:
    """A decoded request: arrays by input name, the outputs that were asked for, the sender's id."""

    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    id: str | None


def decode(body: bytes, servable: Servable) -> Request:
    """Decode and validate a request.

    Raises:
        RequestError: naming the field that is wrong.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RequestError("the body: wanted a JSON object with 'inputs'")
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError("'id': wanted a string")
    return Request(_inputs(document, servable.inputs), _outputs(document, servable.outputs), request_id)


def encode(request: Request, arrays: dict[str, Array], servable: Servable) -> bytes:
    """Encode the answer.

    Raises:
        RequestError: 422 where an output holds NaN or infinity.
    """
    datatypes = {t.name: t.datatype for t in servable.outputs}
    outputs = []
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise RequestError(
                f"output {name!r}: {bad} of {array.size} values are NaN or infinite, which JSON can't carry; "
                "check the scale of the inputs",
                status=422,
                reason="output_not_finite",
            )
        flat = np.ascontiguousarray(array).reshape(-1)
        outputs.append({"name": name, "datatype": datatypes[name], "shape": list(array.shape), "data": flat})
    answer: dict[str, Any] = {
        "model_name": servable.name,
        "model_version": servable.version,
        "outputs": outputs,
    }
    if request.id is not None:
        answer["id"] = request.id
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _inputs(document: dict[str, Any], declared: Sequence[Tensor]) -> dict[str, Array]:
    records = document.get("inputs")
    if not isinstance(records, list):
        raise RequestError("'inputs': wanted a list of tensors")
    tensors = {t.name: t for t in declared}
    arrays: dict[str, Array] = {}
    for i, record in enumerate(records):
        name = record.get("name") if isinstance(record, dict) else None
        if not isinstance(name, str):
            raise RequestError(f"inputs[{i}]: wanted an object with 'name', 'shape', 'datatype' and 'data'")
        if name not in tensors:
            raise RequestError(f"input {name!r}: the model has no such input; it takes {list(tensors)}")
        if name in arrays:
            raise RequestError(f"input {name!r}: appears twice")
        arrays[name] = _array(record, tensors[name])
    missing = [name for name in tensors if name not in arrays]
    if missing:
        raise RequestError(f"'inputs': missing {missing}")
    return arrays


def _array(record: dict[str, Any], tensor: Tensor) -> Array:
    where = f"input {tensor.name!r}"
    datatype = record.get("datatype")
    if datatype != tensor.datatype:
        raise RequestError(f"{where}: datatype: found {datatype!r}, wanted {tensor.datatype!r}")
    shape = _shape(record.get("shape"), tensor, where)
    if "data" not in record:
        raise RequestError(f"{where}: 'data' is missing; this server takes tensors as JSON only")
    array = _values(record["data"], tensor.datatype, where)
    if array.ndim > 1 and array.shape != shape:
        raise RequestError(f"{where}: 'data' is nested as {list(array.shape)}, 'shape' says {list(shape)}")
    if array.size != math.prod(shape):
        raise RequestError(
            f"{where}: 'data' has {array.size} elements, shape {list(shape)} has {math.prod(shape)}"
        )
    return array.reshape(shape)


def _shape(value: Any, tensor: Tensor, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(d) is int and d > 0 for d in value):
        raise RequestError(f"{where}: 'shape': wanted a list of positive integers")
    fits = len(value) == len(tensor.shape) and all(
        want in (-1, got) for got, want in zip(value, tensor.shape, strict=True)
    )
    if not fits:
        raise RequestError(f"{where}: shape: found {value}, wanted {list(tensor.shape)} (-1: any)")
    return tuple(value)


def _values(data: Any, datatype: str, where: str) -> Array:
    if not isinstance(data, list):
        raise RequestError(f"{where}: 'data': wanted a list")
    try:
        raw = np.array(data)
    except ValueError as error:
        raise RequestError(f"{where}: 'data': the nested lists have different lengths") from error
    dtype = np.dtype(NUMPY_NAMES[datatype])
    if dtype.kind == "f":
        return _floats(raw, dtype, where)
    if dtype.kind == "b":
        if raw.dtype.kind != "b":
            raise RequestError(f"{where}: 'data': wanted true and false only, as {datatype} says")
        return raw
    return _integers(data, raw, dtype, where)


def _floats(raw: Array, dtype: np.dtype[Any], where: str) -> Array:
    if raw.dtype.kind == "O":
        raise RequestError(
            f"{where}: 'data': wanted numbers only (null is not one)", reason="input_not_finite"
        )
    if raw.dtype.kind not in "iuf":
        raise RequestError(f"{where}: 'data': wanted numbers only")
    with np.errstate(over="ignore"):
        array = raw.astype(dtype, copy=False)
    if not np.isfinite(array).all():
        raise RequestError(
            f"{where}: 'data': a value is beyond the range of {dtype}", reason="input_not_finite"
        )
    return array


def _integers(data: list[Any], raw: Array, dtype: np.dtype[Any], where: str) -> Array:
    if dtype == np.uint64 and raw.dtype.kind == "f":
        # numpy makes floats of a list that mixes small integers with those above 2**63.
        exact = np.array(data, dtype=object).reshape(-1).tolist()
        if all(type(value) is int and value >= 0 for value in exact):
            return np.array(data, dtype=dtype)
    if raw.dtype.kind not in "iu":
        raise RequestError(f"{where}: 'data': wanted whole numbers only")
    limits = np.iinfo(dtype)
    if raw.size and (int(raw.min()) < limits.min or int(raw.max()) > limits.max):
        raise RequestError(f"{where}: 'data': a value is beyond the range of {dtype}")
    return raw.astype(dtype, copy=False)


def _outputs(document: dict[str, Any], declared: Sequence[Tensor]) -> tuple[str, ...]:
    names = tuple(t.name for t in declared)
    records = document.get("outputs")
    if records is None or records == []:
        return names
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise RequestError("'outputs': wanted a list of objects with 'name'")
    asked = tuple(record.get("name") for record in records)
    for record in records:
        if record.get("name") not in names:
            raise RequestError(
                f"output {record.get('name')!r}: the model has no such output; it gives {list(names)}"
            )
        parameters = record.get("parameters")
        if isinstance(parameters, dict) and parameters.get("binary_data"):
            raise RequestError(f"output {record['name']!r}: binary data isn't supported; ask for JSON")
    if len(set(asked)) != len(asked):
        raise RequestError(f"'outputs': a name appears twice: {list(asked)}")
    return asked
