"""Waits until pods are ready, or gone, and says in the cluster's words why they aren't; changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.causes import (
    Cause,
    classify,
    creation_cause,
    explained,
    is_going,
    is_ready,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.following import follow
from airflow_model_deploy.engine.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import Object
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.client import Cluster

_FIRST_WINDOW_S, _LONGEST_WINDOW_S = 5.0, 60.0
_WHOLE_S = 300.0


def wait_ready(
    cluster: Cluster,
    selector: Mapping[str, str],
    count: int,
    *,
    deadline_s: float,
    log: Callable[[str], None],
) -> list[Object]:
    """Wait until at least `count` pods are ready; returns the ready ones. One list and one watch where all goes well.

    Args:
        cluster: where.
        selector: labels of the pods, and of their Deployment.
        count: how many.
        deadline_s: how long.
        log: takes each new cause that may pass, and how far it is.

    Raises:
        RolloutError: something that waiting doesn't help, at once; or the deadline, with the last cause seen.
    """
    look = _Look(cluster, selector, count, log)
    until = time.monotonic() + deadline_s
    for pods, news in follow(cluster, "Pod", selector, until=until, window=look.window):
        if len(ready := look.at(pods)) >= count:
            return ready
        if not news:
            look.at_creation()
    raise look.late(deadline_s)


def wait_gone(
    cluster: Cluster,
    selector: Mapping[str, str],
    *,
    deadline_s: float,
    log: Callable[[str], None],
    going: bool = False,
) -> None:
    """Wait until no pod of these labels lives any more, not even one that is going (`going`: but those).

    A pod that has ended, as one that was evicted, serves nobody and may be kept for long: it isn't waited for.

    Raises:
        RolloutError: there still is one at the deadline.
    """
    told, names = -1, ""
    for found, _ in follow(cluster, "Pod", selector, until=time.monotonic() + deadline_s):
        pods = {name for name, pod in found.items() if not (_has_ended(pod) or (going and is_going(pod)))}
        if not pods:
            return
        if len(pods) != told:
            told, names = len(pods), ", ".join(sorted(pods))
            log(f"waiting for {told} pods to go: {names}")
    raise RolloutError(f"pods didn't go within {deadline_s:g} s", found=names, wanted="none")


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


class _Look:
    """What was seen of the pods so far."""

    def __init__(
        self, cluster: Cluster, selector: Mapping[str, str], count: int, log: Callable[[str], None]
    ) -> None:
        self._cluster, self._selector, self._count, self._log = cluster, selector, count, log
        self._told: set[str] = set()
        self._pulls: dict[str, Cause] = {}
        self._pods: dict[str, Object] = {}
        self._ready = 0
        self._last: tuple[str, Cause] | None = None
        self._window_s = _FIRST_WINDOW_S

    def window(self) -> float:
        """How long the next watch may last: not long while pods are missing, which no pod could tell."""
        if len(self._pods) >= self._count:
            return _WHOLE_S
        window_s, self._window_s = self._window_s, min(2 * self._window_s, _LONGEST_WINDOW_S)
        return window_s

    def at(self, pods: Mapping[str, Object]) -> list[Object]:
        """The ready ones among the pods; raises where one never will be."""
        self._pods = {name: pod for name, pod in pods.items() if not is_going(pod)}
        ready = [pod for pod in self._pods.values() if is_ready(pod)]
        self._ready = len(ready)
        if self._ready >= self._count:
            return ready
        for name, pod in self._pods.items():
            if (cause := classify(pod)) is not None:
                self._judge(f"pod {name}", name, self._told_by_events(name, cause))
        self._tell(f"{self._ready} of {self._count} pods are ready")
        return ready

    def at_creation(self) -> None:
        """Ask the Deployment why pods are missing; raises where they always will be."""
        if len(self._pods) >= self._count:
            return
        for deployment in self._cluster.list("Deployment", self._selector):
            if (cause := creation_cause(deployment)) is not None:
                self._judge(f"Deployment {deployment['metadata']['name']}", "", cause)

    def late(self, deadline_s: float) -> RolloutError:
        """The error of the deadline, with all that can be learnt now."""
        self.at_creation()
        waits = [name for name, pod in sorted(self._pods.items()) if not is_ready(pod)]
        said = [f"{self._ready} of {self._count} are"]
        if self._last is not None:
            said.append(f"{self._last[0]}: {self._last[1]}")
        for name in waits[:1]:
            said += [f"event {event}" for event in self._cluster.events(name)[-1:]]
            said.append(f"last words of {name}: {self._cluster.log_tail(name, 5)}")
        return RolloutError(
            f"pods aren't ready within {deadline_s:g} s", found="; ".join(said), wanted=f"{self._count} ready"
        )

    def _judge(self, thing: str, pod: str, cause: Cause) -> None:
        self._last = thing, cause
        if not cause.permanent:
            self._tell(f"{thing}: {cause}")
            return
        words = ""
        if cause.exited:
            words = f"; its last words: {self._cluster.log_tail(pod, container=cause.container)}"
        raise RolloutError(f"{thing} will not become ready", found=f"{cause}{words}")

    def _told_by_events(self, name: str, cause: Cause) -> Cause:
        """The cause behind a back-off, which older clusters tell in an event alone; asked once a pod."""
        if cause.reason == "ErrImagePull":
            self._pulls[name] = cause
        if cause.reason != "ImagePullBackOff" or cause.permanent:
            return cause
        if name not in self._pulls:
            self._pulls[name] = explained(cause, self._cluster.events(name))
        return self._pulls[name]

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._log(line)
