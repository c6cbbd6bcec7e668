"""Watches a change for its time and judges it: fail goes back, pass goes on, undecided is held until the deadline."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import is_going, is_ready
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import (
    CONTAINER,
    only,
    revision_name,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.revisions import Pod
from airflow_model_deploy.engine.deployment.targets.kubernetes.scrapes import scrape_pods
from airflow_model_deploy.engine.errors import ModelDeployError, RolloutError
from airflow_model_deploy.engine.monitoring import Counts, PrometheusSource, Track, Window, judge_canary

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision
    from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Moves
    from airflow_model_deploy.engine.monitoring import CanaryVerdict
    from airflow_model_deploy.engine.packaging import Objectives, Rollout

_MOST_LOOKS = 20


class Source(Protocol):
    """Where the counts of one revision's requests come from."""

    def start(self) -> None:
        """Begin to count."""
        ...

    def counts(self) -> Counts:
        """Return what was counted since."""
        ...


@dataclass
class _Watched:
    """One revision in the window."""

    revision: str
    source: Source
    pods: list[Pod]
    restarts: dict[str, int]
    wanted: int

    def track(self, pods: list[Pod], wanted: int) -> Track:
        """Return what is known of it; the restarts of a server are counted since this driver first watched it."""
        self.pods[:] = pods
        return Track.of(
            self._counts(),
            restarts=sum(max(0, restarts_of(pod) - self.restarts.get(_uid(pod), 0)) for pod in pods),
            ready=sum(map(is_ready, pods)),
            # Pods that an autoscaler has asked for a moment ago are on their way; fewer may be wanted, too.
            wanted=min(self.wanted, wanted),
        )

    def _counts(self) -> Counts:
        try:
            return self.source.counts()
        except ModelDeployError as error:
            # A Prometheus that doesn't answer has not seen that all is well.
            return Counts(unknown=(str(error),))


def bake(moves: Moves, decision: Decision, rollout: Rollout, name: str, *, compare: bool) -> None:
    """Watch the candidate for `rollout.bake_s`, beside the live revision where both get requests (`compare`).

    A revision with nothing before it need not have many requests. Everywhere else, no data is not success.

    Raises:
        RolloutError: the candidate fails, or it can't be decided within `hold_s` more.
        ConflictError: somebody else has set a field of the Service meanwhile.
    """
    if not rollout.bake_s:
        return
    means = moves.means
    release = moves.release(decision, str(decision.candidate))
    objectives = release.plan.objectives
    candidate = _watch(moves, rollout, str(decision.candidate), objectives)
    stable = _watch(moves, rollout, str(decision.live), objectives) if compare and decision.live else None
    pause = max(rollout.interval_s, rollout.bake_s / _MOST_LOOKS)
    looks = max(1, round(rollout.bake_s / pause))
    phases = len(rollout.weights) + 1 if rollout.strategy == "canary" else 2
    begun, look = means.now(), 0
    while True:
        means.sleep(pause if look < looks else max(pause, rollout.hold_s / _MOST_LOOKS))
        look += 1
        watched = means.now() - begun
        final = watched >= rollout.bake_s - pause / 2
        verdict = judge_canary(
            _track(moves, candidate),
            _track(moves, stable) if stable else None,
            objectives,
            alpha=rollout.alpha,
            looks=phases * (looks + _MOST_LOOKS),
            final=final,
        )
        moves.lease.require()
        moves.traffic.require(decision)
        # Nothing served before a first release: there is nobody to protect, and few may know it yet.
        few = objectives.min_requests if decision.live is None else 0
        if _decided(moves, verdict, name, watched, rollout, few=few, final=final):
            return


def _decided(
    moves: Moves,
    verdict: CanaryVerdict,
    name: str,
    watched: float,
    rollout: Rollout,
    *,
    few: int,
    final: bool,
) -> bool:
    """Say whether the watch has ended well; raise where it has ended badly; log what was seen."""
    told = "; ".join(verdict.reasons[:3])
    moves.log(f"{moves.means.name}: {name}, {watched:.0f} s: {verdict.status}: {told}")
    first = verdict.status == "inconclusive" and final and _requests(verdict) < few
    late = watched >= rollout.bake_s + rollout.hold_s and verdict.status == "inconclusive"
    if verdict.status == "pass" or first or verdict.status == "fail" or late:
        phases = moves.details.setdefault("phases", [])
        phases.append({"name": name, "watched_s": round(watched, 1), **_short(verdict)})
    if verdict.status == "fail":
        raise RolloutError(
            f"{moves.means.name}: {name} fails", found=told, wanted="a release that keeps its objectives"
        )
    if late and not first:
        raise RolloutError(
            f"{moves.means.name}: {name} can't be decided",
            found=f"{told}, after {watched:.0f} s",
            wanted="enough requests to judge by",
            remedy="No data is not success. Send it traffic, bake longer, or set bake_s to 0 to go without.",
        )
    return verdict.status == "pass" or first


def _requests(verdict: CanaryVerdict) -> int:
    return int((verdict.figures.get("canary") or {}).get("requests") or 0)


def _short(verdict: CanaryVerdict) -> dict[str, Any]:
    """Return what the record keeps of a verdict: an annotation is no place for all of it."""
    kept = ("requests", "errors", "slow", "restarts", "ready", "wanted")
    tracks = {
        role: {key: track[key] for key in kept}
        for role in ("canary", "stable")
        if (track := verdict.figures.get(role))
    }
    return {"status": verdict.status, "reasons": [one[:300] for one in verdict.reasons[:3]], **tracks}


def _watch(moves: Moves, rollout: Rollout, revision: str, objectives: Objectives) -> _Watched:
    pods = _pods(moves, revision)
    source: Source
    if rollout.metrics == "prometheus":
        source = PrometheusSource(str(rollout.prometheus_url)).window(
            f"{revision_name(moves.means.name, revision)}-.+",
            latency_ms=objectives.latency_ms,
            namespace=moves.means.cluster.namespace,
        )
    else:
        source = Window(lambda: scrape_pods(moves.means.reach, pods), latency_ms=objectives.latency_ms)
    source.start()
    for pod in pods:
        # Of a phase before, where there was one: a server may end between two of them.
        moves.watched.setdefault(_uid(pod), restarts_of(pod))
    return _Watched(revision, source, pods, moves.watched, len(pods))


def _track(moves: Moves, watched: _Watched) -> Track:
    wanted = moves.revisions.replicas(watched.revision)
    return watched.track(_pods(moves, watched.revision), wanted or 0)


def _pods(moves: Moves, revision: str) -> list[Pod]:
    found = moves.means.cluster.list("Pod", only(moves.means.name, revision))
    return [pod for pod in found if not is_going(pod)]


def _uid(pod: Pod) -> str:
    return str(pod["metadata"]["uid"])


def restarts_of(pod: Pod) -> int:
    """Return how often the server of a pod has been restarted."""
    total = 0
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        with suppress(KeyError):
            total += int(container["restartCount"]) if container["name"] == CONTAINER else 0
    return total
