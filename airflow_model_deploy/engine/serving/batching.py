"""The queue before the model: what runs next, and with whom; knows neither HTTP nor arrays' values.

Greedy: an idle model runs what is there at once; what arrives meanwhile is the next batch. No request waits for
company that may not come, unless a delay was asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from . import logs
from .execution import failure, refusal
from .request import Answer, Request, RequestError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .execution import Execution
    from .limits import Limits
    from .metrics import Metrics

# A run that is this short is over before a thread would have begun it, and blocks the loop for no longer than
# its other work does.
_INLINE_SECONDS = 0.002
_INLINE_BYTES = 1024 * 1024
_INLINE_ROWS = 64


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way through the queue.

    Args:
        request: what is to run.
        deliver: told the answer, once, in the event loop.
        since: when it was put into the queue.
    """

    request: Request
    deliver: Callable[[Answer], None]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Runs jobs on one model, a batch at a time.

    Args:
        execution: the model.
        limits: length of the queue, rows of a batch, patience.
        metrics: where batches and waiting times are counted.
        pool: one thread, for what would block the loop.
        together: whether the model may run requests together.
        expected_seconds: how long one run took at start.
    """

    def __init__(
        self,
        execution: Execution,
        limits: Limits,
        metrics: Metrics,
        pool: Executor,
        *,
        together: bool,
        expected_seconds: float,
    ) -> None:
        self._execution, self._limits, self._metrics, self._pool = execution, limits, metrics, pool
        self._max_rows = limits.max_batch_size if together else 1
        self._recent = expected_seconds
        self._waiting: deque[Job] = deque()
        self._busy = self._closed = False
        self._alarm: asyncio.TimerHandle | None = None

    def submit(self, request: Request, deliver: Callable[[Answer], None]) -> Job:
        """Put a request into the queue.

        Args:
            request: what is to run.
            deliver: told the answer, once, in the event loop.

        Raises:
            RequestError: 503, the queue is full.
        """
        self.refuse_if_full()
        loop = asyncio.get_running_loop()
        job = Job(request, deliver)
        self._waiting.append(job)
        if not self._busy:
            self._busy = True
            if self._limits.max_delay_seconds > 0:
                loop.call_later(self._limits.max_delay_seconds, self._next)
            else:
                # Behind whatever arrived in the same turn of the loop, which so runs along.
                loop.call_soon(self._next)
        elif self._alarm is None:
            self._set_alarm(loop, job.since)
        return job

    def refuse_if_full(self) -> None:
        """Refuse a request that would find no place in the queue.

        Raises:
            RequestError: 503.
        """
        if len(self._waiting) >= self._limits.max_queue:
            raise RequestError(
                f"{len(self._waiting)} requests wait already; try again in a second",
                status=503,
                reason="queue_full",
            )

    def leave(self, job: Job) -> None:
        """Take a job out of the queue, if it is still there: nobody waits for its answer."""
        if job in self._waiting:
            self._waiting.remove(job)

    def close(self) -> None:
        """Run nothing any more; nobody waits for an answer."""
        self._waiting.clear()
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()

    def _next(self) -> None:
        batch = [] if self._closed else self._take()
        if not batch:
            self._busy = False
            return
        if self._is_short(batch):
            answers: list[Answer] | None = None
            try:
                answers = self._run(batch)
            finally:
                # Whatever happened, nobody is left waiting.
                self._finish(batch, answers)
        else:
            running = asyncio.get_running_loop().run_in_executor(self._pool, self._run, batch)
            running.add_done_callback(partial(self._on_done, batch))

    def _on_done(self, batch: list[Job], running: asyncio.Future[list[Answer]]) -> None:
        answers: list[Answer] | None = None
        try:
            answers = running.result()
        finally:
            self._finish(batch, answers)

    def _run(self, batch: list[Job]) -> list[Answer]:
        started = time.perf_counter()
        self._metrics.batch_size.observe(sum(job.request.rows for job in batch))
        for job in batch:
            self._metrics.queue_seconds.observe(started - job.since)
        answers = self._execution.run([job.request for job in batch])
        # The longest of late: one short run among long ones promises nothing.
        self._recent = max(time.perf_counter() - started, 0.9 * self._recent)
        return answers

    def _finish(self, batch: list[Job], answers: list[Answer] | None) -> None:
        if answers is None:
            answers = [failure("the server failed on this request; its log says why")] * len(batch)
        for job, answer in zip(batch, answers, strict=True):
            self._deliver(job, answer)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._busy = False

    def _take(self) -> list[Job]:
        self._expire(time.perf_counter())
        if not self._waiting:
            return []
        first = self._waiting.popleft()
        key, rows = first.request.key, first.request.rows
        if key is None or not self._waiting or rows >= self._max_rows:
            return [first]
        batch, others = [first], deque[Job]()
        for job in self._waiting:
            if job.request.key == key and rows + job.request.rows <= self._max_rows:
                batch.append(job)
                rows += job.request.rows
            else:
                others.append(job)
        self._waiting = others
        return batch

    def _is_short(self, batch: list[Job]) -> bool:
        if self._recent > _INLINE_SECONDS or batch[0].request.rows > max(self._max_rows, _INLINE_ROWS):
            return False
        size = sum(array.nbytes for array in batch[0].request.inputs.values())
        return size * len(batch) <= _INLINE_BYTES

    def _set_alarm(self, loop: asyncio.AbstractEventLoop, since: float) -> None:
        delay = self._limits.request_timeout_seconds - (time.perf_counter() - since)
        self._alarm = loop.call_later(max(0.0, delay), self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self._expire(time.perf_counter())
        if self._waiting:
            self._set_alarm(asyncio.get_running_loop(), self._waiting[0].since)

    def _expire(self, now: float) -> None:
        limit = self._limits.request_timeout_seconds
        while self._waiting and now - self._waiting[0].since >= limit:
            message = f"the request waited {limit:g} s for the model and was not run; try again"
            error = RequestError(message, status=504, reason="queue_timeout")
            self._deliver(self._waiting.popleft(), refusal(error))

    def _deliver(self, job: Job, answer: Answer) -> None:
        try:
            job.deliver(answer)
        except Exception as error:
            logs.failure("an answer could not be sent", error)
