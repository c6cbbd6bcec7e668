"""Outputs as an answer of the Open Inference Protocol v2, in JSON and binary tensors; knows no HTTP.

JSON has no NaN and no infinity. An output that holds one and isn't asked for as bytes is therefore refused (422,
naming the tensor): null in its place would be a silent lie, and 500 would blame the server for what this model
gives for this request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from .request import Answer, Request, RequestError
from .values import ELEMENTS, to_bytes

if TYPE_CHECKING:
    from .servable import Servable
    from .values import Array


class Encoder:
    """Encodes the answers of one servable."""

    def __init__(self, servable: Servable) -> None:
        self._name, self._version = servable.name, servable.version
        self._elements = {t.name: ELEMENTS[t.datatype] for t in servable.outputs}

    def encode(self, request: Request, arrays: dict[str, Array], *, finite: bool = False) -> Answer:
        """Encode one answer.

        Args:
            request: what is answered.
            arrays: the outputs by name.
            finite: they are known to hold neither NaN nor infinity.

        Raises:
            RequestError: 422 where an output that goes back as JSON holds NaN or infinity.
        """
        outputs: list[dict[str, Any]] = []
        tail: list[memoryview] = []
        for name, array in arrays.items():
            element = self._elements[name]
            record: dict[str, Any] = {"name": name, "datatype": element.name, "shape": array.shape}
            outputs.append(record)
            if name in request.binary:
                tail.append(to_bytes(array, element))
                record["parameters"] = {"binary_data_size": array.nbytes}
                continue
            if not finite:
                _refuse_not_finite(name, array)
            record["data"] = np.ascontiguousarray(array).reshape(-1)
        answer: dict[str, Any] = {
            "model_name": self._name,
            "model_version": self._version,
            "outputs": outputs,
        }
        if request.id is not None:
            answer["id"] = request.id
        head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        if not tail:
            return Answer(200, head)
        return Answer(200, b"".join((head, *tail)), len(head))


def all_finite(arrays: dict[str, Array]) -> bool:
    """Whether no array holds NaN or infinity."""
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays.values())


def _refuse_not_finite(name: str, array: Array) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = int(array.size - np.isfinite(array).sum())
    raise RequestError(
        f"output {name!r}: {bad} of {array.size} values are NaN or infinite, which JSON can't carry; "
        "check the scale of the inputs, or ask for binary data",
        status=422,
        reason="output_not_finite",
    )
