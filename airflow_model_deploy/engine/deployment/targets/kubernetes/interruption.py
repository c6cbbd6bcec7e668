"""A driver that is told to end: SIGTERM becomes an error in the main thread, once, and no retry catches it."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


class RolloutInterruptedError(UnavailableError):
    """The rollout was told to end; what served before serves, and the same call may be made again."""


class Interruption(BaseException):
    """On its way through the rollout; not an Exception, so that nothing takes it for a call that failed."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise RolloutInterruptedError where SIGTERM or SIGINT finds the block; a second one leaves the way back alone.

    Outside the main thread, where no signal arrives, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Interruption(f"told to end by {signal.Signals(number).name}")

    before = {one: signal.signal(one, interrupt) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Interruption as told:
        raise RolloutInterruptedError(
            "the rollout was interrupted",
            found=str(told),
            wanted="time to end",
            remedy="Run it again to go on.",
        ) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
