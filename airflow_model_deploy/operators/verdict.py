"""How a driver's work ended, as the cluster says it, whatever became of the driver's pod."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment import kubernetes as k8s
    from airflow_model_deploy.runners.base import Log

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Driven:
    """What a driver was sent to do: enough to ask the cluster for its end, from any process.

    Args:
        step: "deploy" or "rollback".
        service: whose traffic it moves.
        namespace: of the service and of the driver.
        attempt: the key under which the cluster keeps the end.
        revision: that is to serve; None: the one before.
        delivered: the ConfigMap with the release; None: of a rollback.
    """

    step: str
    service: str
    namespace: str
    attempt: str
    revision: str | None = None
    delivered: str | None = None

    def to_json(self) -> str:
        """Return it as text, for an annotation of the driver's pod."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Driven | None:
        """Read what `to_json` wrote; None where it was written by something else."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def same_work(self, other: Driven) -> bool:
        """Whether another driver was sent to do the same, in another try maybe."""
        return asdict(self) | {"attempt": ""} == asdict(other) | {"attempt": ""}

    def succeeded(self, outcome: k8s.Outcome) -> bool:
        """Whether this end is what was wanted. A rollback in the middle of a deployment ends that deployment."""
        ends = outcome.result == "rolled back" and outcome.action == "deploy"
        return outcome.result in ("promoted", "unchanged") or (self.step == "rollback" and ends)


def read_decision(cluster: k8s.Cluster, service: str) -> tuple[dict[str, Any], k8s.Decision]:
    """Return the Service and its decision; empty ones where there is no Service yet."""
    from airflow_model_deploy.engine.deployment import kubernetes

    found = cluster.get("Service", service)
    return (found, kubernetes.decision_on(found)) if found else ({}, kubernetes.Decision())


def ended(cluster: k8s.Cluster, driven: Driven, *, patience_s: float, log: Log) -> k8s.Outcome | None:
    """Return how it ended, once nothing of it is left half way; None where the cluster has no trace of an end.

    A driver that was told to end gives the traffic back itself. Where it hasn't after `patience_s`, or nobody is left
    to do it, it is done here: traffic that goes to a revision which nobody watches must not stay there.

    Raises:
        ModelDeployError: the cluster can't be reached, or another driver is at work.
    """
    until = time.monotonic() + patience_s
    while True:
        _, decision = read_decision(cluster, driven.service)
        outcome = decision.outcome_of(driven.attempt)
        # What another call has taken over is that one's business.
        finished = decision.candidate is None and decision.replicas is None
        if finished or decision.attempt != driven.attempt:
            return outcome
        if outcome is not None and outcome.result == "held":
            return outcome
        if time.monotonic() >= until:
            break
        time.sleep(_LOOK_EVERY_S)
    log.warning("%s: nobody is moving its traffic any more; it is given back", driven.service)
    _give_back(cluster, driven)
    return read_decision(cluster, driven.service)[1].outcome_of(driven.attempt)


def result_of(
    cluster: k8s.Cluster, driven: Driven, outcome: k8s.Outcome, release: Any, duration_s: float
) -> dict[str, Any]:
    """Return the step's result as every target gives it; a deployment's artifact is the release."""
    from airflow_model_deploy.engine.artifacts import Reference
    from airflow_model_deploy.engine.deployment import kubernetes
    from airflow_model_deploy.engine.steps import StepResult

    service, decision = read_decision(cluster, driven.service)
    reference = Reference.from_json(release) if release else None
    known: dict[str, Any] = release if isinstance(release, dict) else {}
    kept: dict[str, Any] = {
        name: known.get(name) for name in ("name", "kind", "format", "size_bytes") if known.get(name)
    }
    details = {
        "url": kubernetes.known_url(service, driven.namespace) if service else "",
        "namespace": driven.namespace,
        "name": driven.service,
        "revision": decision.live,
        "previous": decision.previous,
        "changed": outcome.result != "unchanged",
        "summary": outcome.details.get("summary") or outcome.reason,
        "outcome": asdict(outcome),
    }
    if isinstance(outcome.details.get("golden"), dict):
        details["golden"] = outcome.details["golden"]
    return StepResult(
        step=driven.step,
        status="succeeded",
        artifact=reference,
        parent=reference.digest if reference else None,
        metrics=dict(known.get("metrics") or {}),
        details=details,
        duration_s=round(duration_s, 3),
        **kept,
    ).to_json()


def _give_back(cluster: k8s.Cluster, driven: Driven) -> None:
    from airflow_model_deploy.engine.deployment import kubernetes
    from airflow_model_deploy.engine.steps.clusters import means_of

    means = means_of(cluster, driven.service, reach="auto", attempt=driven.attempt)
    kubernetes.give_back(means)
