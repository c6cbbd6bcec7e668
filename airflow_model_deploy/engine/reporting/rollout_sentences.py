"""What became of a rollout, in sentences; works out nothing that the report doesn't hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.reporting import wording

if TYPE_CHECKING:
    Rollout = dict[str, Any]

# The classes by which the page colours a result, a phase's status.
TONES = {
    "promoted": "yes",
    "unchanged": "yes",
    "pass": "yes",
    "interrupted": "degraded",
    "inconclusive": "degraded",
    "rolled back": "no",
    "held": "no",
    "fail": "no",
}
_ENDS = {
    ("deploy", "promoted"): "It took over all requests",
    ("deploy", "unchanged"): "It served already; its pods stayed as they were",
    ("deploy", "rolled back"): "It was sent back, and all requests went to what served before",
    ("deploy", "interrupted"): "It was interrupted, and all requests went to what served before",
    ("rollback", "promoted"): "The service went back to it, and it took over all requests",
    ("rollback", "rolled back"): "The service was to go back to it, and stayed with what served before",
}


def of_end(rollout: Rollout) -> str:
    """How it ended, and when."""
    action, result = rollout["action"] or "deploy", rollout["result"]
    told = _ENDS.get((action, result or ""), f"It ended as {result or 'nobody knows'}")
    if result == "held":
        told = "It is held: neither revision is healthy, so nothing was moved"
    at = wording.moment(rollout["at"])
    return f"{told}{at and f' ({at})'}."


def of_watch(rollout: Rollout) -> str | None:
    """What was seen of the new revision in all phases together; None where it was never watched."""
    phases = rollout["phases"]
    if not phases:
        return None
    number, total = len(phases), sum(phase["watched_s"] or 0.0 for phase in phases)
    told = f"It was watched for {wording.seconds(total)} in {number} {'phase' if number == 1 else 'phases'}"
    tracks = [phase["canary"] for phase in phases if phase["canary"]]
    if len(tracks) < number or any(one["requests"] is None or one["errors"] is None for one in tracks):
        return f"{told}; not all of its requests could be counted."
    requests, errors = (sum(one[key] for one in tracks) for key in ("requests", "errors"))
    if not requests:
        return f"{told}; nobody asked it."
    return f"{told}: {wording.count(requests)} requests, of which {wording.count(errors) if errors else 'none'} failed."


def of_golden(rollout: Rollout) -> str | None:
    """How many golden requests it answered; None where it wasn't asked."""
    golden = rollout["golden"]
    if golden is None or golden["total"] is None:
        return None
    return f"{wording.number(golden['matched'])} of {golden['total']} golden requests match."


def reason_of(rollout: Rollout) -> str | None:
    """Why it didn't become what serves; None where it did: its own words say no more than the rest."""
    return None if TONES.get(rollout["result"]) == "yes" else rollout["reason"]


def of_changes(rollout: Rollout) -> str:
    """The head of the list of changes."""
    number = len(rollout["changes"])
    return f"What it changed in the cluster: {number} {'object' if number == 1 else 'objects'}"


def of_left_out(rollout: Rollout) -> str | None:
    """What the cluster couldn't take; None where it took all."""
    kinds = rollout["left_out"]
    return f"Left out, because this cluster doesn't serve it: {wording.listed(kinds)}." if kinds else None


def rows(phase: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Whose figures, requests, errors, slow ones, ready pods: the new revision's and, beside it, the old one's."""
    return [
        (
            who,
            _requests(track["requests"], share),
            _part(track["errors"], track["error_share"]),
            _part(track["slow"], track["slow_share"]),
            f"{wording.number(track['ready'])} of {wording.number(track['wanted'])}"
            + (f", {track['restarts']} restarts" if track["restarts"] else ""),
        )
        for who, track, share in _tracks(phase)
    ]


def of_shares(what: str) -> str:
    """What a chart of shares shows: of "errors" or "slow" requests."""
    told = {"errors": "Requests answered with an error", "slow": "Successful requests over the objective"}[
        what
    ]
    return (
        f"{told}, of the new revision and of the old one beside it: further to the left is better. A line is the 95 %"
        " confidence interval."
    )


def _tracks(phase: dict[str, Any]) -> list[tuple[str, dict[str, Any], float | None]]:
    share = phase["request_share"]
    sides = (("new", phase["canary"], share), ("old", phase["stable"], None if share is None else 1 - share))
    return [(who, track, part) for who, track, part in sides if track is not None]


def _requests(value: int | None, share: float | None) -> str:
    return wording.count(value) + ("" if share is None else f" ({share * 100:.0f} %)")


def _part(value: int | None, share: float | None) -> str:
    return wording.count(value) + (f" ({wording.percent(share)})" if value and share is not None else "")
