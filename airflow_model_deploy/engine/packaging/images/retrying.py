"""How long to go on trying with a registry that fails for a while; knows no request."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from airflow_model_deploy.engine.errors import UnavailableError

_FIRST_S = 0.25
_LONGEST_S = 20.0


class TransientError(UnavailableError):
    """One attempt that failed and may succeed when it is made again; `retry_after_s` is what the registry asked for."""

    def __init__(self, thing: str, *, found: object, retry_after_s: float = 0.0) -> None:
        super().__init__(thing, found=found)
        self.retry_after_s = retry_after_s


class Patience:
    """Waits between attempts: twice as long each time, with jitter, at most `limit_s` without progress.

    Args:
        limit_s: seconds from the last progress to the last attempt.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.progressed()

    def progressed(self) -> None:
        """Something went well: begin to count anew."""
        self._pause_s = _FIRST_S
        self._until = time.monotonic() + self._limit_s

    def wait(self, trouble: TransientError) -> None:
        """Sleep before the next attempt.

        Raises:
            UnavailableError: the time is over, or would be after the wait that the registry asks for.
        """
        jitter = 0.5 + secrets.randbelow(1000) / 1000
        pause = max(self._pause_s * jitter, trouble.retry_after_s)
        if time.monotonic() + pause > self._until:
            asked = f", wait {trouble.retry_after_s:.0f} s" if trouble.retry_after_s else ""
            raise UnavailableError(
                trouble.thing,
                found=f"{trouble.found}{asked}",
                wanted=f"an answer within {self._limit_s:g} s",
                remedy="Look whether the registry runs and can be reached, then run the step again: what arrived stays",
            ) from trouble
        time.sleep(pause)
        self._pause_s = min(2 * self._pause_s, _LONGEST_S)


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later, by its answer's status."""
    return status in (408, 425, 429) or (status >= 500 and status not in (501, 505))


def seconds_of(retry_after: str | None) -> float:
    """Read a Retry-After header, seconds or a date; 0 where there is none or it can't be read."""
    if not retry_after:
        return 0.0
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        return 0.0
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
