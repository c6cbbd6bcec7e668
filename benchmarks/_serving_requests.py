"""How a request is written and its answer read, one mode a wire format. Knows no server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import _serving_model as mlp

if TYPE_CHECKING:
    from collections.abc import Mapping

_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Message:
    """A body and what is said about it."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class V2Json:
    """Open Inference Protocol v2: data in the JSON document, a flat list."""

    name: str = "json"
    path: str = f"/v2/models/{mlp.NAME}/infer"

    def request(self, inputs: np.ndarray) -> Message:
        """(n, 784) -> a request."""
        return _json({"inputs": [_tensor(inputs) | {"data": _floats(inputs.ravel())}]})

    def outputs(self, answer: Message) -> np.ndarray:
        """An answer -> (n, 10)."""
        tensor = json.loads(answer.body)["outputs"][0]
        return np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])


@dataclass(frozen=True)
class V2Binary:
    """Open Inference Protocol v2 with Triton's binary tensor extension, both ways."""

    name: str = "binary"
    path: str = f"/v2/models/{mlp.NAME}/infer"

    def request(self, inputs: np.ndarray) -> Message:
        """(n, 784) -> a request."""
        data = inputs.tobytes()
        tensor = _tensor(inputs) | {"parameters": {"binary_data_size": len(data)}}
        document = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        header = _json(document).body
        headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(header))}
        return Message(headers, header + data)

    def outputs(self, answer: Message) -> np.ndarray:
        """An answer -> (n, 10).

        Raises:
            ValueError: it isn't binary.
        """
        length = _header(answer.headers, _LENGTH)
        if length is None:
            raise ValueError(f"an answer without {_LENGTH}: {answer.body[:200]!r}")
        tensor = json.loads(answer.body[: int(length)])["outputs"][0]
        return np.frombuffer(answer.body[int(length) :], np.float32).reshape(tensor["shape"])


@dataclass(frozen=True)
class Rows:
    """What a web framework's tutorial would use: {"x": rows}, answered with rows."""

    path: str
    name: str = "json"

    def request(self, inputs: np.ndarray) -> Message:
        """(n, 784) -> a request."""
        return _json({mlp.INPUT: [_floats(row) for row in inputs]})

    def outputs(self, answer: Message) -> np.ndarray:
        """An answer -> (n, 10)."""
        return np.asarray(json.loads(answer.body), np.float32)


Mode = V2Json | V2Binary | Rows


def _json(document: dict[str, Any]) -> Message:
    text = json.dumps(document, separators=(",", ":"))
    return Message({"Content-Type": "application/json"}, text.encode())


def _tensor(inputs: np.ndarray) -> dict[str, Any]:
    return {"name": mlp.INPUT, "shape": list(inputs.shape), "datatype": "FP32"}


def _floats(values: np.ndarray) -> list[float]:
    """Numbers with the fewest digits that give the same float32, as clients write them."""
    return [float(str(value)) for value in values]


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
