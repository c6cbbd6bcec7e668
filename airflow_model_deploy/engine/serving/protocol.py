"""A request of the Open Inference Protocol v2, in JSON and binary tensors, as numpy arrays; knows no HTTP.

The body is a JSON object; where the header Inference-Header-Content-Length tells the object's length, the bytes
of the inputs with `binary_data_size` follow it, in the order of the inputs. With the length 0 the whole body is
the one input's bytes, and the answer's.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import orjson

from .plan import Part, Plan, Planner
from .request import Request, RequestError
from .values import Array, ValuesError, from_bytes, from_json

if TYPE_CHECKING:
    from .servable import Servable

# Plans of JSON objects that hold no values: small ones, and few.
_PLAN_BYTES, _PLANS = 4096, 256
# From here on a JSON object is looked at before it is decoded: each list, object and string takes a hundred bytes.
_LARGE_BYTES, _OBJECTS = 1024 * 1024, 1_000_000


class Decoder:
    """Decodes and validates the requests for one servable."""

    def __init__(self, servable: Servable, max_json_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_json_bytes = max_json_bytes
        self._planner = Planner(servable)
        self._plans: dict[bytes, Plan] = {}

    def decode(self, body: bytes | bytearray, header_length: int | None = None) -> Request:
        """Decode a request; bytes of tensors stay where they are.

        Args:
            body: the HTTP body; not to be changed any more.
            header_length: bytes of the JSON object; None: the whole body is JSON.

        Raises:
            RequestError: naming the field that is wrong.
        """
        if header_length is None:
            plan, start, head = self._read(body), len(body), body
        elif header_length == 0:
            plan, start, head = self._planner.plan_raw(len(body)), 0, b""
        elif header_length > len(body):
            raise RequestError(
                f"inference-header-content-length: {header_length}, the body has {len(body)} bytes"
            )
        else:
            start, head = header_length, bytes(body[:header_length])
            plan = self._plans.get(head) or self._read(head)
        if start + plan.tail_bytes != len(body):
            raise RequestError(
                f"binary data: {len(body) - start} bytes follow the JSON object, 'binary_data_size' of all inputs "
                f"is {plan.tail_bytes}; the object's length goes into the header Inference-Header-Content-Length"
            )
        # A number is no "true", though struct takes it for one; both words have a letter that few others have.
        bools = not plan.all_bytes and (
            (b"r" in head and b"true" in head) or (b"l" in head and b"false" in head)
        )
        inputs = {part.name: _array(part, body, start, bools=bools) for part in plan.parts}
        return Request(inputs, plan.outputs, plan.id, plan.binary, plan.rows, plan.key)

    def _read(self, head: bytes | bytearray) -> Plan:
        if len(head) > _LARGE_BYTES:
            return self._read_large(head)
        plan = self._planner.plan(_loads(head))
        if plan.all_bytes and len(head) <= _PLAN_BYTES:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[bytes(head)] = plan
        return plan

    def _read_large(self, head: bytes | bytearray) -> Plan:
        # No input takes strings, names need few: all that is many is numbers.
        others = head.count(b"[") + head.count(b"{") + head.count(b'"') // 2
        if len(head) > self._max_json_bytes or others > _OBJECTS:
            raise RequestError(
                f"the JSON object has {len(head)} bytes with {others} lists, objects and strings, wanted at most "
                f"{self._max_json_bytes} and {_OBJECTS}; send larger tensors as binary data, or fewer samples",
                status=413,
                reason="too_large",
            )
        # JSON makes no cycles, and the collector would walk millions of new objects again and again to see that.
        gc.disable()
        try:
            return self._planner.plan(_loads(head))
        finally:
            gc.enable()


def _loads(head: bytes | bytearray) -> Any:
    try:
        return orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error


def _array(part: Part, body: bytes | bytearray, start: int, *, bools: bool) -> Array:
    try:
        if part.data is None:
            return from_bytes(body, start + part.start, part.element, part.shape)
        return from_json(part.data, part.element, part.shape, bools=bools)
    except ValuesError as error:
        reason = "input_not_finite" if error.not_finite else "invalid"
        raise RequestError(f"input {part.name!r}: {error}", reason=reason, tensor=part.name) from error
