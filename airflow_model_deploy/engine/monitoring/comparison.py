"""One share of a canary's requests, tested against its bound and against the stable release's; knows no pods.

Two hypotheses, each tested one-sided and exactly at the level that it is given:

- against the bound: H0 "the canary's share is at most the bound" (binomial test).
- against the stable: H0 "the canary's share is at most the stable's" (Fisher's test). Significant alone isn't
  enough: with a million requests 0.02 % differs from 0.01 %, and nobody has to act. The shares have to differ by
  more than a margin too, a part of what the objective allows (see `canary.py`). That only makes rejections rarer.

Where a share is known between two numbers only, whatever speaks for the canary is assumed before it is called worse
(its least, the stable's most), and whatever speaks against it before it is called good (its most).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.monitoring.proportions import (
    difference_probability,
    excess_probability,
    noticeable_share,
)
from airflow_model_deploy.engine.monitoring.track import Share, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.monitoring.track import Track
    from airflow_model_deploy.engine.packaging import Objectives

CanaryStatus = Literal["pass", "fail", "inconclusive"]
Finding = tuple[CanaryStatus, str]
_ERROR_MARGIN, _SLOW_MARGIN = 0.1, 0.5  # parts of what the objective allows
_ROUNDING = 1e-6  # of a share times a count: 0.29 * 100 is a little less than 29


@dataclass(frozen=True)
class Comparison:
    """The canary's share beside what it may be.

    Args:
        what: how a sentence goes on after "3 of 240".
        bound: the share that the objective allows.
        margin: how much higher than the stable's a share may be, whatever a test says.
        level: of each test.
        canary: its share; None is not known.
        stable: the stable release's; None: there is none, or it isn't known.
    """

    what: str
    bound: float
    margin: float
    level: float
    canary: Share | None
    stable: Share | None

    def figures(self) -> dict[str, Any]:
        """Every number of it."""
        return {
            "bound": self.bound,
            "margin": self.margin,
            "canary": self.canary and self.canary.to_json(),
            "stable": self.stable and self.stable.to_json(),
            "p_bound": self.p_bound(),
            "p_stable": self.p_stable(),
            "noticeable": self.noticeable(),
        }

    def p_bound(self) -> float | None:
        """The p value of the test against the bound; None where the share isn't known."""
        if self.canary is None:
            return None
        return excess_probability(self.canary.least, self.canary.trials, self.bound)

    def p_stable(self) -> float | None:
        """The p value of the test against the stable; None where one of the shares isn't known."""
        if self.canary is None or self.stable is None:
            return None
        return difference_probability(
            self.canary.least, self.canary.trials, self.stable.most, self.stable.trials
        )

    def noticeable(self) -> float | None:
        """The share that so many requests would have shown to be over the bound, nine times of ten."""
        return noticeable_share(self.canary.trials, self.bound, self.level) if self.canary else None

    def findings(self) -> Iterator[Finding]:
        """What the numbers say against the canary; needs a known share."""
        canary, p_bound, p_stable = self.canary, self.p_bound(), self.p_stable()
        if canary is None or p_bound is None or not canary.trials:
            return
        allowed = f"{canary} {self.what}, {percent(self.bound)} allowed"
        if p_bound < self.level:
            yield "fail", f"{allowed} (p = {p_bound:.1g})"
        elif canary.least > self.bound * canary.trials + _ROUNDING:
            yield "inconclusive", f"{allowed}; chance may give as many (p = {p_bound:.1g})"
        elif canary.most > self.bound * canary.trials + _ROUNDING:
            yield (
                "inconclusive",
                f"{allowed}; only an objective at an edge of the server's buckets is counted exactly",
            )
        if p_stable is not None and p_stable < self.level and self._excess() > self.margin:
            yield "fail", f"{canary} {self.what}, the stable release's {self.stable} (p = {p_stable:.1g})"

    def praise(self) -> str:
        """What was seen, as a sentence without a verdict."""
        if self.canary is None:
            return f"{self.what}: not known"
        beside = "" if self.stable is None else f", the stable release's {self.stable}"
        return f"{self.canary} {self.what}{beside}, {percent(self.bound)} allowed"

    def _excess(self) -> float:
        if self.canary is None or self.stable is None or not self.canary.trials or not self.stable.trials:
            return 0.0
        return self.canary.least / self.canary.trials - self.stable.most / self.stable.trials


def comparisons(
    canary: Track, stable: Track | None, goals: Objectives, level: float
) -> tuple[Comparison, Comparison]:
    """The share of errors, and that of slow requests, each test at that level."""
    over = round(1.0 - goals.latency_share, 12)  # 1 - 0.9 is a little less than 0.1
    errors = Comparison(
        what="requests answered with an error",
        bound=goals.max_error_share,
        margin=_ERROR_MARGIN * goals.max_error_share,
        level=level,
        canary=canary.error_share(),
        stable=stable.error_share() if stable else None,
    )
    slow = Comparison(
        what=f"successful requests over {goals.latency_ms:g} ms",
        bound=over,
        margin=_SLOW_MARGIN * over,
        level=level,
        canary=canary.slow_share(),
        stable=stable.slow_share() if stable else None,
    )
    return errors, slow
