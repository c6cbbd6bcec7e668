"""Why a pod isn't ready, told from its status alone, in the cluster's own words; asks the cluster nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import says_absent, says_no_room

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HOPELESS = frozenset(
    {"InvalidImageName", "ErrImageNeverPull", "SignatureValidationFailed", "StartError", "ContainerCannotRun"}
)
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff"})
_SETUP = frozenset({"CreateContainerConfigError", "RunContainerError"})
_REFUSED = re.compile(
    r"unauthorized|authentication required|no basic auth|denied|forbidden|insufficient_scope|\b40[13]\b"
)
_ILL = re.compile(r"toomanyrequests|too many requests|\b(429|5\d\d) |status( code)?:? (429|5\d\d)\b")
_LATER = re.compile(
    r"timed? ?out|deadline exceeded|failed to sync|connection refused|too many requests|unavailable"
)
_QUOTA = ("exceeded quota", "forbidden")
_CRASHES = 3
_KILLS = 2
_SERIES = timedelta(minutes=10)  # after so long a run, the kubelet forgets the crashes before it


@dataclass(frozen=True)
class Cause:
    """Why something isn't ready.

    Args:
        permanent: waiting doesn't help.
        reason: the cluster's short name for it.
        text: the cluster's own words.
        container: the container that it is about; empty: the pod.
        exited: that container ran and ended, so that it may have left words.
    """

    permanent: bool
    reason: str
    text: str
    container: str = ""
    exited: bool = False

    def __str__(self) -> str:
        return self.text if self.text.startswith(self.reason) else f"{self.reason}: {self.text}"


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod may get traffic: it says so, and isn't going away."""
    return not is_going(pod) and _condition(pod, "Ready").get("status") == "True"


def is_going(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has been told to end."""
    return "deletionTimestamp" in pod["metadata"]


def classify(pod: Mapping[str, Any]) -> Cause | None:
    """Why a pod isn't ready; None where it is, where it's going away, or where it's simply not that far yet.

    The worst of its containers' causes goes first, then the pod's own.
    """
    if is_ready(pod) or is_going(pod):
        return None
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":  # evicted, or its node went away: the next one may live
        said = str(status.get("message") or "the pod failed")
        return Cause(False, str(status.get("reason") or "Failed"), said)
    found = [cause for container in _containers(status) if (cause := _of_container(container)) is not None]
    for cause in sorted(found, key=lambda c: not c.permanent):
        return cause
    scheduled, ready = _condition(pod, "PodScheduled"), _condition(pod, "Ready")
    if scheduled.get("status") == "False":
        return Cause(False, str(scheduled.get("reason")), str(scheduled.get("message") or ""))
    if ready.get("status") == "False" and status.get("phase") == "Running":
        return Cause(False, str(ready.get("reason") or "NotReady"), str(ready.get("message") or "not ready"))
    return None


def pull_cause(words: str, reason: str = "ErrImagePull", container: str = "") -> Cause:
    """The cause that the words about a pull tell: permanent where the registry says no."""
    return Cause(_says_no(words), reason, words, container)


def explained(cause: Cause, events: Sequence[str]) -> Cause:
    """The cause behind a bare back-off, which older clusters tell in an event alone."""
    if cause.reason != "ImagePullBackOff" or cause.permanent:
        return cause
    said = [event for event in events if "pull image" in event]
    return pull_cause(said[-1], cause.reason, cause.container) if said else cause


def creation_cause(deployment: Mapping[str, Any]) -> Cause | None:
    """Why a Deployment can't create its pods; None where it can."""
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            said = str(condition.get("message") or "")
            permanent = any(part in said.lower() for part in _QUOTA)
            return Cause(permanent, str(condition.get("reason")), said)
    return None


def _of_container(container: Mapping[str, Any]) -> Cause | None:
    name = str(container.get("name"))
    state, last = container.get("state") or {}, container.get("lastState") or {}
    waiting, ended = state.get("waiting"), state.get("terminated")
    before = last.get("terminated")
    restarts = int(container.get("restartCount") or 0)
    if ended:
        again = before is not None and _soon_after(before, ended)
        kills = sum(_is_kill(e) for e in (before, ended)) if before is not None and again else 1
        return _of_exit(ended, name, exits=restarts + 1, kills=kills, loops=again)
    if not waiting:
        return None
    reason, said = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason == "CrashLoopBackOff" and before:
        kills = restarts + 1 if _is_kill(before) else 0  # of the others nothing is known any more
        return _of_exit(before, name, exits=restarts + 1, kills=kills, loops=True)
    if reason in _PULL:
        return pull_cause(said, reason, name)
    if reason in _HOPELESS:
        return Cause(True, reason, said or reason, name)
    if reason in _SETUP:
        return Cause(_LATER.search(said.lower()) is None, reason, said or reason, name)
    return (
        None if reason in ("ContainerCreating", "PodInitializing", "") else Cause(False, reason, said, name)
    )


def _of_exit(ended: Mapping[str, Any], name: str, *, exits: int, kills: int, loops: bool) -> Cause | None:
    """A cause for a container that ended `exits` times, `kills` of them for memory.

    Exits count for good only where they follow each other (`loops`): a pod of months may have had some.
    """
    reason, code = str(ended.get("reason") or "Error"), int(ended.get("exitCode") or 0)
    words = str(ended.get("message") or "").strip()
    if reason == "Completed" and not loops:
        return None
    if kills >= _KILLS:
        return Cause(True, "OOMKilled", f"{name} was killed for its memory {kills} times", name, exited=True)
    often = f"{exits} times" if exits > 1 else "once"
    text = f"{name} exited {often}, last with code {code} ({reason})" + (f": {words}" if words else "")
    permanent = reason in _HOPELESS or (loops and exits >= _CRASHES)
    return Cause(permanent, "CrashLoopBackOff" if loops else reason, text, name, exited=True)


def _soon_after(before: Mapping[str, Any], ended: Mapping[str, Any]) -> bool:
    """Whether the cluster counts the two as one series, and holds the next start back; both times are its own."""
    try:
        first, second = (datetime.fromisoformat(str(e["finishedAt"])) for e in (before, ended))
    except (KeyError, ValueError):
        return False
    return second - first < _SERIES


def _is_kill(ended: Mapping[str, Any]) -> bool:
    return ended.get("reason") == "OOMKilled"


def _says_no(words: str) -> bool:
    said = words.lower()
    if says_no_room(said) or _ILL.search(said):
        return False
    return _REFUSED.search(said) is not None or says_absent(said)


def _containers(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _condition(pod: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind:
            return dict(condition)
    return {}
