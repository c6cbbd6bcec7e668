"""Why a step's pod ended without a result, in the cluster's own words; asks the cluster nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.runners.base import PERMANENT_EXITS
from airflow_model_deploy.runners.pod import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_model_deploy.runners.pod import Pod

_KILLED = 137  # 128 + SIGKILL


@dataclass(frozen=True)
class Ending:
    """How it ended; permanent: trying again doesn't help."""

    message: str
    permanent: bool = False


def ending(pod: Pod, found: Mapping[str, Any] | None, said: str, warnings: Sequence[str]) -> Ending:
    """Tell how a pod ended.

    Args:
        pod: what was asked for.
        found: the pod as the cluster has it; None: it is gone.
        said: what whoever waited for it was told.
        warnings: the cluster's events about it.
    """
    if found is None:
        return Ending(
            f"the step's pod is gone and left no result{_quoted(said)}; it was deleted, or its node was"
        )
    status = found.get("status") or {}
    ended = _ended(status)
    if ended and ended.get("reason") == "OOMKilled":
        limit = pod.memory_bytes or "the node's"
        return Ending(f"the step's pod ran out of memory (limit: {limit} bytes); give it more `memory_bytes`")
    if status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost
        return Ending(f"the step's pod was ended by the cluster: {status['reason']}: {status.get('message')}")
    if ended:
        return _exited(ended)
    return _waiting(found, said, warnings)


def _exited(ended: Mapping[str, Any]) -> Ending:
    code = int(ended.get("exitCode") or 0)
    lines = str(ended.get("message") or "").strip().splitlines()
    last = f"; last line: {lines[-1]!r}" if lines else ""
    if code == _KILLED:
        return Ending(f"the step's pod was killed from outside and left no result{last}")
    reason = ended.get("reason") or "Error"
    return Ending(
        f"the step's pod ended without a result (exit code {code}, {reason}){last}", code in PERMANENT_EXITS
    )


def _waiting(found: Mapping[str, Any], said: str, warnings: Sequence[str]) -> Ending:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import classify, explained

    cause = classify(found)
    cause = cause and explained(cause, warnings)
    known = str(cause) if cause else ""
    words = [one for one in dict.fromkeys(warnings) if one not in known]
    told = "; ".join(filter(None, [known, *words[-3:]])) or said  # the last ones say why, in full
    return Ending(f"the step's pod didn't run: {told}", bool(cause and cause.permanent))


def _ended(status: Mapping[str, Any]) -> dict[str, Any] | None:
    for one in status.get("containerStatuses") or ():
        if one.get("name") == CONTAINER:
            return (one.get("state") or {}).get("terminated") or None
    return None


def _quoted(said: str) -> str:
    return f" ({said})" if said else ""
