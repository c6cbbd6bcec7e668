"""Answers as bytes of HTTP/1.1; knows no connection."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson

from .request import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

_STATUS = {s.value: b"HTTP/1.1 %d %s\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
_CLOSE = b"connection: close\r\n"
# What a second try may find changed.
_BUSY = (503, 504)


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return the headers that belong to an answer of the protocol."""
    kind = answer.content_type or (
        b"application/octet-stream" if answer.header_length else b"application/json"
    )
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(answer.body))]
    if answer.header_length:
        headers.append((b"inference-header-content-length", b"%d" % answer.header_length))
    if answer.status in _BUSY:
        headers.append((b"retry-after", b"1"))
    if answer.allow is not None:
        headers.append((b"allow", answer.allow))
    return headers


def answer_bytes(answer: Answer, default: Iterable[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
    """Return a whole answer.

    Args:
        answer: what to say.
        default: headers of every answer.
        keep_alive: whether the connection goes on.
    """
    lines = [b"%s: %s\r\n" % header for header in (*default, *headers_of(answer))]
    end = b"\r\n" if keep_alive else _CLOSE + b"\r\n"
    return b"".join((_STATUS[answer.status], *lines, end, answer.body))


def refusal_bytes(status: int, message: str) -> bytes:
    """Return a whole answer that ends the connection."""
    return answer_bytes(Answer(status, orjson.dumps({"error": message})), (), keep_alive=False)
