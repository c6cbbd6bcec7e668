"""What became of the demo's rollouts, as lines, and whether it is what was promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment import kubernetes as k8s
from demo_traffic import versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo_traffic import Asked


@dataclass(frozen=True)
class Ended:
    """One run: its state, its stages' results, how its rollout ended, what serves since, and when it was."""

    run_id: str
    state: str
    results: dict[str, dict[str, Any]]
    outcome: k8s.Outcome | None
    live: str | None
    began: float
    ended: float


def summarise(ends: list[Ended], seen: list[Asked]) -> None:
    """Print each rollout with its phases, and what clients saw."""
    print("\nThe rollouts:")
    for number, end in enumerate(ends, 1):
        if end.outcome is None:
            continue
        print(f"\n  {number}  revision {end.outcome.revision}  {end.outcome.result}")
        for phase in end.outcome.details.get("phases", []):
            print(f"     {phase['name']:18} {phase['status']:13} {_figures(phase)}")
        if end.outcome.result != "promoted":
            print(f"     why: {end.outcome.reason}")
    raw, failed = [one for one in seen if one.raw], [one for one in seen if one.failure]
    print(
        f"\nClients sent {len(seen)} requests, {len(raw)} of them in grey levels of 0 to 16 instead of 0 to 1;"
        f" {len(failed)} failed, {sum(one.raw for one in failed)} of those in grey levels."
    )


def claims(
    ends: list[Ended], seen: list[Asked], report: dict[str, Any], live: str | None
) -> Iterator[tuple[str, bool]]:
    """What the demo promises, and whether it is so."""
    first, second, third = ends
    on_trial = [one for one in seen if third.began <= one.at < third.ended]
    last = [one for one in seen if one.at >= third.ended]
    failed = [one for one in seen if one.failure]
    states = [end.results.keys() >= {"deploy_model", "monitor_model"} for end in ends]
    yield (
        "releases 1 and 2 were promoted",
        all(
            end.state == "success" and end.outcome and end.outcome.result == "promoted"
            for end in (first, second)
        ),
    )
    yield "release 2 took over by canary, beside release 1", _phases(second) > 1
    yield (
        "release 3 passed its golden requests, failed on traffic and was sent back",
        bool(third.outcome and third.outcome.result == "rolled back" and _golden(third)),
    )
    yield "its run failed at the deployment", third.state == "failed" and states == [True, True, False]
    before = versions([one for one in seen if one.at < second.began])
    since = versions([one for one in seen if second.ended <= one.at < third.began])
    yield "release 2 answers in place of release 1", len(since) == 1 and not since.keys() & before.keys()
    yield "and still does", live == second.live and versions(last).keys() == since.keys()
    yield (
        "no request failed but those that release 3 can't take, while it was tried",
        bool(failed) and all(one.raw and one in on_trial for one in failed),
    )
    results = [one["result"] for one in report["rollouts"]]
    yield "the report shows all three", results == ["promoted", "promoted", "rolled back"]


def _phases(end: Ended) -> int:
    return len(end.outcome.details.get("phases", [])) if end.outcome else 0


def _golden(end: Ended) -> bool:
    golden = end.outcome.details.get("golden") if end.outcome else None
    return isinstance(golden, dict) and golden["matched"] == golden["total"] > 0


def _figures(phase: dict[str, Any]) -> str:
    told = [
        f"{who} {track['requests']} requests, {track['errors']} errors, {track['slow']} slow"
        for who, track in (("new", phase.get("canary")), ("old", phase.get("stable")))
        if track
    ]
    return f"{phase['watched_s']:4.0f} s; {'; '.join(told)}"
