"""From the counts of a canary and of the stable release to pass, fail or inconclusive; pure arithmetic, no clock.

| status       | any of                                                                                        |
|--------------|-----------------------------------------------------------------------------------------------|
| fail         | a restart; no pod ready; the share of errors, or of slow requests, significantly over its     |
|              | objective; significantly over the stable's, by more than a margin                             |
| inconclusive | not all pods ready (one may be on its way to another node, or just asked for by an            |
|              | autoscaler: it is waited for); counts not known, or not of every pod; fewer than              |
|              | `min_requests` (of which so many have to be successful, for the slow ones); a share over its  |
|              | objective, not significantly; the window not at its end                                       |
| pass         | nothing of the above                                                                          |

**False alarms.** A canary that keeps its objectives and is as good as the stable fails by chance with a probability
of at most `alpha` in the whole rollout: a look's level is alpha / looks, and each of its tests (errors and slow
requests, against the bound and against the stable) gets an equal part of it (Bonferroni's inequality, which holds
for looks at growing counts too). This counts requests as independent; where failures come in bursts, it doesn't hold
exactly, and the margins are the reserve.

**Margins.** A canary worse than the stable fails even where it keeps the objective: the same callers got more
errors, at the same time, for no other reason than the release. Under a tenth of what the objective allows
(0.1 points for 1 %), the difference is let be. For slow requests it is half of what is allowed: slowness comes in
bursts, differs from node to node, and a model may be slower on purpose as long as it keeps the objective.

**A bad stable** is no reason against a canary: its readiness and restarts are not judged, and where its counts are
not known the objectives alone decide. Two bad ones fail, by the objective.

**How many requests** show a share of errors of 2 % nine times of ten, at alpha = 0.01 beside a stable: against a
bound of 1 % alone 2,500 of the canary's in one look, 3,300 in the last of 12; against a stable that fails 0.1 %, 830
(12 looks: 1,120) with as many of the stable's, 400 (500) with nine times as many. The figures' `noticeable` says what a
window's own number would have shown against the bound.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self, cast, get_args

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring.comparison import CanaryStatus, Finding, comparisons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.monitoring.track import Track
    from airflow_model_deploy.engine.packaging import Objectives

_SEVERITY: tuple[CanaryStatus, ...] = ("fail", "inconclusive", "pass")


@dataclass(frozen=True)
class CanaryVerdict:
    """A status, the sentences that explain it, the deciding ones first, and every number behind them."""

    status: CanaryStatus
    reasons: tuple[str, ...]
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` wrote; InputError for anything else."""
        status, reasons, figures = (value.get(name) for name in ("status", "reasons", "figures"))
        if status in get_args(CanaryStatus) and isinstance(reasons, list) and isinstance(figures, dict):
            return cls(cast("CanaryStatus", status), tuple(map(str, reasons)), figures)
        raise InputError("a canary's verdict", found=value, wanted="status, reasons and figures")


def judge_canary(
    canary: Track,
    stable: Track | None,
    objectives: Objectives,
    *,
    alpha: float,
    looks: int = 1,
    final: bool = True,
) -> CanaryVerdict:
    """Apply the table above.

    Args:
        canary: the new revision's track.
        stable: the old one's in the same window; None: there is none (a first release, or after the switch), and
            the objectives alone decide.
        objectives: what the new revision owes its callers.
        alpha: how likely a good canary may fail by chance, in all looks together.
        looks: how many times the rollout will have judged growing counts when it ends.
        final: whether the window is at its end. Before it, the verdict is never "pass".

    Raises:
        InputError: an alpha or a number of looks that can't be.
    """
    if not 0 < alpha < 1 or looks < 1:
        raise InputError(
            "a canary's test", found=f"alpha {alpha}, {looks} looks", wanted="0 < alpha < 1, 1 or more looks"
        )
    level = alpha / looks / (2 if stable is None else 4)
    errors, slow = comparisons(canary, stable, objectives, level)
    findings = [
        *_pods(canary),
        *errors.findings(),
        *slow.findings(),
        *_evidence(canary, objectives),
    ]
    praise = f"{errors.praise()}; {slow.praise()}"
    if not final:
        findings.append(("inconclusive", f"the window isn't at its end; so far {praise}"))
    status: CanaryStatus = min((s for s, _ in findings), key=_SEVERITY.index, default="pass")
    findings.sort(key=lambda finding: _SEVERITY.index(finding[0]))
    figures = {
        "alpha": alpha,
        "looks": looks,
        "level": level,
        "final": final,
        "canary": canary.to_json(),
        "stable": stable and stable.to_json(),
        "errors": errors.figures(),
        "slow": slow.figures(),
    }
    return CanaryVerdict(status, tuple(reason for _, reason in findings) or (praise,), figures)


def _pods(canary: Track) -> Iterator[Finding]:
    if canary.restarts:
        yield "fail", f"{canary.restarts} restarts of the canary's containers"
    if canary.ready < max(canary.wanted, 1):
        status: CanaryStatus = "fail" if canary.ready == 0 else "inconclusive"
        yield status, f"{canary.ready} of {canary.wanted} of the canary's pods are ready"


def _evidence(canary: Track, goals: Objectives) -> Iterator[Finding]:
    counts = (("requests", canary.error_share()), ("successful requests' latencies", canary.slow_share()))
    for what, share in counts:
        if share is None:
            yield "inconclusive", f"the canary's {what} are not known"
        elif share.trials < goals.min_requests:
            yield "inconclusive", f"{share.trials} {what} counted of the canary, {goals.min_requests} wanted"
    if canary.unknown:
        yield (
            "inconclusive",
            f"the counts of {', '.join(canary.unknown)} could not be read; the rest is counted",
        )
