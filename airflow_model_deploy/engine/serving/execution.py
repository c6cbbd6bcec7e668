"""Runs requests on the model, together where they fit, and encodes their answers; knows no queue.

A batch that the model refuses or fails on is run again one request at a time: a bad request never fails the
others, nor does it hide among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import orjson

from . import logs
from .answers import all_finite
from .request import Answer, Request, RequestError
from .session import RunFailedError, UnfitInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .answers import Encoder
    from .observing import Observer
    from .session import Session
    from .values import Array

    Arrays = dict[str, Array]


class Execution:
    """One model, ready to run requests; not for two threads at once.

    Args:
        session: the loaded model.
        encoder: makes the answers.
        observer: counts what the inputs hold.
    """

    def __init__(self, session: Session, encoder: Encoder, observer: Observer) -> None:
        self._session, self._encoder, self._observer = session, encoder, observer

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        """Run one request, or several of one key."""
        if len(requests) == 1:
            self._observer.observe(requests[0].inputs)
            return [self._alone(requests[0])]
        inputs = {
            name: np.concatenate([request.inputs[name] for request in requests])
            for name in requests[0].inputs
        }
        self._observer.observe(inputs)
        rows = [request.rows for request in requests]
        outputs = self._together(inputs, requests[0].outputs, sum(rows))
        if outputs is None:
            return [self._alone(request) for request in requests]
        finite = all_finite(outputs)
        parts = _split(outputs, rows)
        return [self._encode(request, next(parts), finite=finite) for request in requests]

    def _together(self, inputs: Arrays, outputs: tuple[str, ...], rows: int) -> Arrays | None:
        try:
            arrays = self._session.run(inputs, outputs)
        except (UnfitInputError, RunFailedError):
            return None
        return arrays if all(array.shape[:1] == (rows,) for array in arrays.values()) else None

    def _alone(self, request: Request) -> Answer:
        try:
            arrays = self._session.run(_aligned(request.inputs), request.outputs)
        except UnfitInputError as error:
            return refusal(RequestError(f"the model refuses these inputs: {error}"))
        except RunFailedError as error:
            logs.warning("inference failed", error=str(error))
            return failure(f"the model failed on this request: {error}")
        return self._encode(request, arrays)

    def _encode(self, request: Request, arrays: Arrays, *, finite: bool = False) -> Answer:
        try:
            return self._encoder.encode(request, arrays, finite=finite)
        except RequestError as error:
            return refusal(error)


def refusal(error: RequestError) -> Answer:
    """Answer with what is wrong with the request."""
    return Answer(error.status, orjson.dumps({"error": str(error)}), None, error.reason)


def failure(message: str) -> Answer:
    """Answer that the server, or the model, failed."""
    return Answer(500, orjson.dumps({"error": message}))


def _aligned(inputs: Arrays) -> Arrays:
    # Bytes of a body begin where its JSON object ends; the runtime's kernels may load whole vectors.
    return {name: array if array.flags.aligned else array.copy() for name, array in inputs.items()}


def _split(arrays: Arrays, rows: Sequence[int]) -> Iterator[Arrays]:
    start = 0
    for count in rows:
        yield {name: array[start : start + count] for name, array in arrays.items()}
        start += count
