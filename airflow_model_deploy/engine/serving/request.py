"""What a decoded request and its answer are, and what is told of one that can't be answered; no encoding."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from .values import Array

# What an error repeats of a request is there to be recognised, not to be sent back.
_MESSAGE_CHARACTERS = 1000


class RequestError(Exception):
    """A request that can't be answered, told so that its sender can correct it.

    Args:
        message: what is wrong.
        status: the HTTP status.
        reason: a short, fixed word for metrics.
        tensor: the input that it is about, if one is.
    """

    def __init__(
        self, message: str, *, status: int = 400, reason: str = "invalid", tensor: str | None = None
    ) -> None:
        if len(message) > _MESSAGE_CHARACTERS:
            message = f"{message[:_MESSAGE_CHARACTERS]}..."
        super().__init__(message)
        self.status, self.reason, self.tensor = status, reason, tensor


@dataclass(slots=True)
class Request:
    """A decoded request.

    Args:
        inputs: arrays by input name.
        outputs: the outputs that were asked for, in that order.
        id: the sender's id.
        binary: those of the outputs that go back as bytes.
        rows: the first size of its inputs, where they have one size in common.
        key: requests with equal keys differ in their rows alone; None: it has no rows.
    """

    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    id: str | None = None
    binary: frozenset[str] = frozenset()
    rows: int = 1
    key: Hashable = None


@dataclass(slots=True)
class Answer:
    """What goes back.

    Args:
        status: the HTTP status.
        body: the HTTP body.
        header_length: bytes of the body's JSON object where bytes of tensors follow it.
        reason: why it was refused, if it was.
        content_type: of a body that is neither JSON nor tensors.
        allow: the method that would be right.
    """

    status: int
    body: bytes
    header_length: int | None = None
    reason: str | None = None
    content_type: bytes | None = None
    allow: bytes | None = None
