"""What is known of one revision's pods in a window: their requests and their state; judges nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow_model_deploy.engine.evaluation import wilson

if TYPE_CHECKING:
    from airflow_model_deploy.engine.monitoring.counts import Counts


@dataclass(frozen=True)
class Share:
    """`least` to `most` of `trials` requests; the same number twice where it is known exactly."""

    trials: int
    least: int
    most: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, with the 95 % interval of the share (Wilson's, from the least to the most)."""
        if not self.trials:
            return asdict(self) | {"share": None, "interval": None}
        interval = [wilson(self.least, self.trials)[0], wilson(self.most, self.trials)[1]]
        return asdict(self) | {"share": self.least / self.trials, "interval": interval}

    def __str__(self) -> str:
        number = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        share = f" ({percent(self.least / self.trials)})" if self.trials else ""
        return f"{number} of {self.trials}{share}"


@dataclass(frozen=True)
class Track:
    """What is known of one revision's pods in a window; of the counts, None is not known (see `Counts`).

    Args:
        requests: answered, whatever the answer.
        errors: answered with 5xx.
        slow: successful and surely over the latency objective.
        restarts: of its containers in the window.
        ready: pods that are ready.
        wanted: pods that should be.
        timed: successful requests, those that `slow` is a part of; None: all but the errors.
        slow_most: those that may be over the objective; None: as many as `slow`.
        unknown: pods whose counts are not known at the end.
    """

    requests: int | None
    errors: int | None
    slow: int | None
    restarts: int
    ready: int
    wanted: int
    timed: int | None = None
    slow_most: int | None = None
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, counts: Counts, *, restarts: int, ready: int, wanted: int) -> Self:
        """Put counted requests and the state of the pods together."""
        return cls(
            counts.requests,
            counts.errors,
            counts.slow,
            restarts,
            ready,
            wanted,
            timed=counts.timed,
            slow_most=counts.slow_most,
            unknown=counts.unknown,
        )

    def error_share(self) -> Share | None:
        """The requests answered with 5xx, of all."""
        if self.requests is None or self.errors is None:
            return None
        return Share(self.requests, self.errors, self.errors)

    def slow_share(self) -> Share | None:
        """The slow requests, of the successful ones."""
        timed = self.timed
        if timed is None and self.requests is not None and self.errors is not None:
            timed = self.requests - self.errors
        if timed is None or self.slow is None:
            return None
        return Share(timed, self.slow, self.slow if self.slow_most is None else self.slow_most)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"unknown": list(self.unknown)}


def percent(share: float) -> str:
    """As a sentence says it."""
    return f"{share:.2%}" if share >= 0.001 or share == 0 else f"{share:.4%}"
