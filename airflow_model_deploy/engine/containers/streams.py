"""The engine's progress streams (pull, push, build) as lines for a person and as what they came to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_EVERY_S = 5.0
_COUNTDOWN = "Retrying in"  # a line a second and layer


class StreamError(Exception):
    """What the engine said when it gave up; callers turn it into an error that names the thing."""


@dataclass
class Outcome:
    """What a stream came to.

    Args:
        aux: what the engine told to programs, in order ({"ID": ..} of a build, {"Digest": ..} of a push).
        sent: layer -> bytes that went over the wire for it.
    """

    aux: list[Mapping[str, Any]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)


def follow(stream: Iterable[Mapping[str, Any]], log: Callable[[str], None]) -> Outcome:
    """Read a stream to its end; every event is a line, the progress of transfers one in five seconds.

    Raises:
        StreamError: the engine reported an error.
    """
    outcome, told = Outcome(), time.monotonic()
    for event in stream:
        if "error" in event or "errorDetail" in event:
            raise StreamError(_error_of(event))
        if "aux" in event:
            outcome.aux.append(event["aux"])
        progress = event.get("progressDetail") or {}
        waiting = str(event.get("status", "")).startswith(_COUNTDOWN)
        if "current" in progress or waiting:
            if event.get("status") == "Pushing":
                outcome.sent[str(event.get("id"))] = int(progress["current"])
            if time.monotonic() - told < _EVERY_S:
                continue
            told = time.monotonic()
        for line in _lines(event, progress):
            log(line)
    return outcome


def _error_of(event: Mapping[str, Any]) -> str:
    detail = event.get("errorDetail") or {}
    return str(detail.get("message") or event.get("error") or event).strip()


def _lines(event: Mapping[str, Any], progress: Mapping[str, Any]) -> list[str]:
    if "stream" in event:
        return [line.rstrip() for line in str(event["stream"]).splitlines() if line.strip()]
    status = event.get("status")
    if not status:
        return []
    layer = f"{event['id']}: " if event.get("id") else ""
    if "current" not in progress:
        return [f"{layer}{status}"]
    total = f" of {_megabytes(progress['total'])}" if progress.get("total") else ""
    return [f"{layer}{status} {_megabytes(progress['current'])}{total} MB"]


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"
