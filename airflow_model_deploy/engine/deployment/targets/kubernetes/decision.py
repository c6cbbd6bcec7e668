"""The traffic decision of a service in a cluster, and how it is written there; starts and stops no pod.

It lives on the Service itself, beside the selector that carries it out: one write moves the traffic and says so.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import DECISION, every, only
from airflow_model_deploy.engine.errors import InputError

SCHEMA_VERSION = 1
KEPT = 10
# All annotations of an object together may have 256 KiB; without room for them, no traffic could be moved.
MOST_CHARACTERS = 100_000

Action = Literal["deploy", "rollback"]
Stage = Literal["private", "shared", "routed", "switched"]
Result = Literal["promoted", "rolled back", "unchanged", "interrupted", "held"]


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended.

    Args:
        attempt: the caller's key of the call.
        action: what was wanted.
        revision: the revision that was to become live.
        result: promoted: it serves; rolled back, interrupted: what served before serves; unchanged: it served
            already; held: neither revision is healthy, so nothing was moved.
        reason: why, in words.
        at: when, in UTC.
        details: for a report: verdicts by phase, changes, golden requests.
    """

    attempt: str | None
    action: Action
    revision: str
    result: Result
    reason: str
    at: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """Who gets the requests, and how far a change of that has come.

    Args:
        generation: grows by one with every write.
        live: the revision that is entitled to the traffic; during a change, where a failure leads back to.
        previous: where a rollback leads.
        candidate: the revision that is to become live; None: nothing is being changed.
        action: what the change is for.
        stage: of the change. private: the candidate gets no requests; shared: both get them; routed: it gets a share
            by an HTTPRoute, and none by the Service; switched: it gets all.
        step: of the strategy; the index of its phase.
        replicas: full scale of the live revision when the change began; after it, what a way back has yet to bring
            it to.
        planned: replicas by the plan of the last change.
        attempt: the key of the call that makes the change, or made the last one.
        releases: revision -> name of the ConfigMap with its release.
        outcome: how the last change ended.
        history: outcomes before that, newest first.
    """

    generation: int = 0
    live: str | None = None
    previous: str | None = None
    candidate: str | None = None
    action: Action | None = None
    stage: Stage | None = None
    step: int = 0
    replicas: int | None = None
    planned: int | None = None
    attempt: str | None = None
    releases: dict[str, str] = field(default_factory=dict)
    outcome: Outcome | None = None
    history: tuple[Outcome, ...] = ()

    @property
    def owner(self) -> str | None:
        """The revision whose settings the Service has: the one that gets all requests, or most."""
        return self.candidate if self.stage == "switched" else self.live

    def selector(self, service: str) -> dict[str, str]:
        """Return the Service's selector: the decision, carried out."""
        return every(service) if self.stage == "shared" else only(service, self.owner)

    def ended(self, outcome: Outcome, **changes: Any) -> Decision:
        """Return the decision after a change; `changes` say what became of it."""
        none = dict.fromkeys(("candidate", "action", "stage", "replicas"))
        settled: dict[str, Any] = none | {"step": 0} | changes
        return replace(self.noted(outcome), **settled)

    def outcome_of(self, attempt: str | None) -> Outcome | None:
        """Return how the call of that key ended, if it is still known."""
        known = (self.outcome, *self.history) if self.outcome else self.history
        return next((one for one in known if one and attempt and one.attempt == attempt), None)

    def annotation(self) -> dict[str, str]:
        """Return the annotation that holds it."""
        return {DECISION: self.bounded().text()}

    def text(self) -> str:
        """Return it as JSON."""
        value = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    def bounded(self) -> Decision:
        """Return it as short as the API takes it: what is forgotten first is the oldest, then the details."""
        kept = self
        while len(kept.text()) > MOST_CHARACTERS and (
            kept.history or (kept.outcome and kept.outcome.details)
        ):
            if kept.history:
                kept = replace(kept, history=kept.history[:-1])
            elif kept.outcome:
                kept = replace(kept, outcome=replace(kept.outcome, details={}))
        return kept

    def noted(self, outcome: Outcome) -> Decision:
        """Return it with one more outcome, the others behind it."""
        history = ((self.outcome,) if self.outcome else ()) + self.history
        return replace(self, outcome=outcome, history=history[: KEPT - 1])


def as_written(decision: Decision) -> Decision:
    """Return a decision as it is read back once it was written."""
    return decision_on({"metadata": {"name": "", "annotations": decision.annotation()}})


def decision_on(service: dict[str, Any]) -> Decision:
    """Read the decision from a Service object.

    Raises:
        InputError: the Service is not ours, or its decision was written by another version.
    """
    name = service["metadata"]["name"]
    text = (service["metadata"].get("annotations") or {}).get(DECISION)
    if text is None:
        raise InputError(
            f"Service {name} in the cluster",
            found=f"no annotation {DECISION}: something else made it",
            wanted="no Service of that name, or one that a rollout made",
            remedy="Give the model another name, or remove the Service if nobody needs it.",
        )
    try:
        value = json.loads(text)
        version = value.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(f"decision on Service {name}", found=version, wanted=SCHEMA_VERSION)
        outcome = Outcome(**value["outcome"]) if value["outcome"] else None
        history = tuple(Outcome(**one) for one in value["history"])
        return Decision(**value | {"outcome": outcome, "history": history})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"decision on Service {name}",
            found=f"{type(error).__name__}: {error}",
            wanted=f"the annotation {DECISION} as a rollout writes it",
            remedy="Put the annotation back as it was (kubectl rollout has no part in it), or remove the Service"
            " and deploy again.",
        ) from error
