"""What the clients of a server saw, request by request, and the sums of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """One request, as its client saw it.

    Args:
        at: when it was sent, by `time.monotonic`.
        took_s: until its answer or its failure.
        fresh: over a connection of its own, just opened.
        high: with a value that some models misbehave on.
        version: of the model that answered, if one did.
        reason: of a failure: "refused", "reset", "closed", "timeout", "wrong answer", a status; else "".
        detail: what was said about it.
    """

    at: float
    took_s: float
    fresh: bool
    high: bool
    version: str
    reason: str
    detail: str


class Seen(tuple[Asked, ...]):
    """Requests, and what there is to say of them together."""

    @property
    def versions(self) -> Counter[str]:
        """How many right answers each version gave."""
        return Counter(one.version for one in self if not one.reason)

    @property
    def reasons(self) -> Counter[str]:
        """How many requests failed, by reason."""
        return Counter(one.reason for one in self if one.reason)

    @property
    def failures(self) -> list[str]:
        """Every failure in words."""
        return [f"{one.reason}: {one.detail} ({_manner(one)})" for one in self if one.reason]

    def of(self, *, fresh: bool | None = None, high: bool | None = None) -> Seen:
        """Those over connections of one sort, or with inputs of one sort."""
        return Seen(one for one in self if fresh in (None, one.fresh) and high in (None, one.high))

    def slower_than(self, seconds: float) -> int:
        """How many answers took longer."""
        return sum(one.took_s > seconds for one in self if not one.reason)


def _manner(one: Asked) -> str:
    return f"{'fresh' if one.fresh else 'kept'} connection, after {one.took_s:.3f} s"
