"""From an observation to a verdict; pure arithmetic, no clock, no network. No data is never healthy.

The first status that has a reason is the verdict; the reasons of all of them are told.

| status       | any of                                                                                      |
|--------------|---------------------------------------------------------------------------------------------|
| failing      | not ready at the end; the last probe got no answer; a wrong answer; errors or unanswered    |
|              | probes clearly over `max_error_share` (their number is less than 5 % likely under it)       |
| degraded     | errors or unanswered probes over `max_error_share`, not clearly; share within `latency_ms`  |
|              | under `latency_share` by the server's count, or clearly so by the probes' own timing;       |
|              | a restart seen; memory over `max_memory_bytes`                                              |
| inconclusive | metrics not readable; fewer than `min_requests` requests counted, or latencies measured;    |
|              | memory unknown though it has a bound                                                        |
| healthy      | nothing of the above: ready, every probe answered and right, enough requests, all within    |

A share is judged only over `min_requests` observations or more, except that a clear excess needs no minimum:
the test counts them itself. The latency share is exact (a bucket's edge, or the probes' own timing), never an
interpolated quantile.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.monitoring.proportions import excess_probability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.monitoring.observation import Observation
    from airflow_model_deploy.engine.packaging import Objectives

Status = Literal["healthy", "degraded", "failing", "inconclusive"]
_SIGNIFICANCE = 0.05
_SEVERITY: tuple[Status, ...] = ("failing", "degraded", "inconclusive")


@dataclass(frozen=True)
class Verdict:
    """A status and the sentences that explain it, the deciding ones first."""

    status: Status
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"reasons": list(self.reasons)}


def judge(observation: Observation, objectives: Objectives) -> Verdict:
    """Apply the table above."""
    findings = [
        *_answers(observation),
        *_errors(observation, objectives),
        *_evidence(observation, objectives),
        *_latency(observation, objectives),
        *_process(observation, objectives),
    ]
    for status in _SEVERITY:
        if any(found == status for found, _ in findings):
            ordered = sorted(findings, key=lambda f: _SEVERITY.index(f[0]))
            return Verdict(status, tuple(reason for _, reason in ordered))
    return Verdict("healthy", (_praise(observation, objectives),))


def _answers(seen: Observation) -> Iterator[tuple[Status, str]]:
    if not seen.ready:
        yield "failing", "the server isn't ready at the end of the window"
    if not seen.last_probe_answered:
        yield "failing", "the last probe got no answer"
    if seen.probes_wrong:
        yield "failing", f"{seen.probes_wrong} of {seen.probes_answered} golden answers are wrong"


def _errors(seen: Observation, goals: Objectives) -> Iterator[tuple[Status, str]]:
    counts = [("probes without an answer", seen.probes_sent - seen.probes_answered, seen.probes_sent)]
    if seen.errors is not None and seen.requests is not None:
        counts.append(("requests answered with an error", seen.errors, seen.requests))
    for what, events, trials in counts:
        if events <= trials * goals.max_error_share:
            continue
        line = f"{events} of {trials} {what}, {goals.max_error_share:.2%} allowed"
        if excess_probability(events, trials, goals.max_error_share) < _SIGNIFICANCE:
            yield "failing", line
        elif trials >= goals.min_requests:
            yield "degraded", line


def _latency(seen: Observation, goals: Objectives) -> Iterator[tuple[Status, str]]:
    timed = (seen.requests or 0) if seen.over_objective_source == "histogram" else seen.probes_answered
    if seen.over_objective is None or timed < goals.min_requests:
        yield "inconclusive", f"{timed} latencies measured, {goals.min_requests} wanted"
    elif 1.0 - seen.over_objective < goals.latency_share - 1e-9:
        within = f"{1.0 - seen.over_objective:.2%} of {timed} requests within {goals.latency_ms:g} ms"
        yield "degraded", f"{within} ({seen.over_objective_source}), {goals.latency_share:.2%} wanted"
    if seen.over_objective_source == "histogram":
        yield from _waiting(seen, goals)


def _waiting(seen: Observation, goals: Objectives) -> Iterator[tuple[Status, str]]:
    """Judge by what a caller waits: the server's clock starts when it reads a request, however long that lay there."""
    total = len(seen.probe_latencies_ms)
    late = sum(latency > goals.latency_ms for latency in seen.probe_latencies_ms)
    if excess_probability(late, total, 1.0 - goals.latency_share) < _SIGNIFICANCE:
        within = f"{(total - late) / total:.2%} of {total} probes answered within {goals.latency_ms:g} ms"
        yield (
            "degraded",
            f"{within}, {goals.latency_share:.2%} wanted; the server's own clock sees less of it",
        )


def _process(seen: Observation, goals: Objectives) -> Iterator[tuple[Status, str]]:
    if seen.reset_seen:
        yield "degraded", "the server was restarted within the window"
    limit, memory = goals.max_memory_bytes, seen.memory_bytes
    if limit is not None and memory is None:
        yield "inconclusive", "the server's memory is unknown"
    elif limit is not None and memory is not None and memory > limit:
        yield "degraded", f"{memory} bytes of memory, {limit} allowed"


def _evidence(seen: Observation, goals: Objectives) -> Iterator[tuple[Status, str]]:
    if not seen.metrics_readable or seen.requests is None:
        yield "inconclusive", "the server's metrics could not be read"
    elif seen.requests < goals.min_requests:
        yield "inconclusive", f"{seen.requests} requests counted, {goals.min_requests} wanted"


def _praise(seen: Observation, goals: Objectives) -> str:
    within = 1.0 - (seen.over_objective or 0.0)
    return (
        f"{seen.probes_answered} golden answers right, {seen.errors} errors in {seen.requests} requests,"
        f" {within:.2%} within {goals.latency_ms:g} ms"
    )
