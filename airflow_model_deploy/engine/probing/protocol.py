"""numpy arrays as tensors of the Open Inference Protocol v2 and back; knows JSON values, no transport."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, TypeGuard

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""numpy's name of an element type -> the protocol's."""

_NUMPY_NAMES = {oip: name for name, oip in DATATYPES.items()}


def datatype(dtype: DTypeLike) -> str:
    """The protocol's name of a numpy element type; strings are BYTES."""
    import numpy as np

    resolved = np.dtype(dtype)
    if resolved.kind in "USO":
        return "BYTES"
    if resolved.name not in DATATYPES:
        raise InputError(
            "an element type that the protocol has no name for", found=resolved.name, wanted=sorted(DATATYPES)
        )
    return DATATYPES[resolved.name]


def numpy_name(oip: str) -> str:
    """Name numpy uses for one of the protocol's datatypes ("object" for BYTES)."""
    if oip == "BYTES":
        return "object"
    if oip not in _NUMPY_NAMES:
        raise InputError("an unknown datatype", found=oip, wanted=sorted(_NUMPY_NAMES))
    return _NUMPY_NAMES[oip]


def to_tensor(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """An array as a JSON tensor with flat data; every float survives the way there and back bit for bit.

    Raises:
        InputError: a NaN or an infinity (JSON has neither), or an element type that the protocol lacks.
    """
    import numpy as np

    kind = datatype(array.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            f"tensor {name!r} holds NaN or infinity", wanted="finite numbers: JSON has no others"
        )
    flat = array.reshape(-1).tolist()
    if kind == "BYTES":
        flat = [v.decode() if isinstance(v, bytes) else str(v) for v in flat]
    return {"name": name, "shape": list(array.shape), "datatype": kind, "data": flat}


def from_tensor(tensor: dict[str, Any]) -> np.ndarray[Any, Any]:
    """A JSON tensor as an array; a null among floats becomes NaN (servers write NaN that way).

    Raises:
        InputError: a field is missing or malformed, or the data doesn't fill the shape.
    """
    import numpy as np

    name, shape, oip, data = (tensor.get(k) for k in ("name", "shape", "datatype", "data"))
    if not isinstance(oip, str) or not isinstance(data, list) or not _is_shape(shape):
        raise InputError(
            f"tensor {name!r} is malformed",
            found={k: v for k, v in tensor.items() if k != "data"},
            wanted="shape (sizes), datatype (text) and data (a list)",
        )
    try:
        array = np.asarray(data, dtype=numpy_name(oip))
    except (TypeError, ValueError, OverflowError) as e:
        raise InputError(f"data of tensor {name!r} isn't {oip}", found=str(e)) from e
    if array.size != prod(shape):
        raise InputError(
            f"tensor {name!r} doesn't fill its shape",
            found=f"{array.size} values",
            wanted=f"{prod(shape)} for shape {shape}",
        )
    return array.reshape(shape)


def _is_shape(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
