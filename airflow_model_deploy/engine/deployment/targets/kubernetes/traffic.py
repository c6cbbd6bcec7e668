"""Reads and writes a service's decision: one guarded write a change, on the Service that carries it out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    AbsentError,
    ConflictError,
    StaleError,
    claimed,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import (
    Decision,
    as_written,
    decision_on,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import NO_REVISION
from airflow_model_deploy.engine.errors import (
    InputError,
    IntegrityError,
    RolloutError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, Lease
    from airflow_model_deploy.engine.packaging import Workload

_TRIES = 5


class Traffic:
    """The Service of one model.

    Args:
        cluster: where it is.
        name: of the service.
        lease: held by the one who may write.
        workload_of: settings of the release that a revision was deployed by.
    """

    def __init__(
        self, cluster: Cluster, name: str, lease: Lease, workload_of: Callable[[Decision], Workload]
    ) -> None:
        self._cluster, self.name, self._lease = cluster, name, lease
        self._workload_of = workload_of
        self._seen: dict[str, Any] | None = None
        self._sent: Decision | None = None

    @property
    def service(self) -> dict[str, Any]:
        """The Service as it was last read or written."""
        return self._seen or {}

    def read(self) -> Decision:
        """Return the decision as it is now; an empty one where there is no Service yet."""
        self._seen = self._cluster.get("Service", self.name)
        return self._decision()

    def latest(self, known: Decision) -> Decision:
        """Return the decision as it is: a write of our own may have been carried out though its answer never came."""
        if self._sent in (None, known):
            return known
        found = self.read()
        return found if found == self._sent else known

    def require(self, decision: Decision) -> None:
        """See that nobody else has set a field of the Service. What was taken away, the next write brings back.

        Raises:
            ConflictError: somebody else set a field of it, with their name.
            RolloutError: likewise, and the server would refuse to set it back.
            UnavailableError: another writer has changed the decision, or the Service is gone.
            InputError: there is no decision on it that could be read.
        """
        self.read()
        self._require_same(decision)
        if self._seen is None or self.undisturbed(decision):
            return
        # The server says who set what we would set. What somebody added to the selector we would set nowhere.
        wanted = self._object(decision)
        added = (self._seen["spec"].get("selector") or {}).keys() - wanted["spec"]["selector"].keys()
        wanted["spec"]["selector"] |= dict.fromkeys(added, NO_REVISION)
        try:
            self._cluster.apply(wanted, dry_run=True)
        except InputError as error:
            raise RolloutError(
                f"Service {self.name} was changed by another writer",
                found=f"the server refuses what it has to be: {error}",
                wanted="a Service that nobody else changes",
                remedy="Undo that change (kubectl get service -o yaml --show-managed-fields tells whose).",
            ) from error

    def write(self, before: Decision, after: Decision, *, force: bool = False) -> Decision:
        """Replace the decision that was read as `before`.

        A write whose answer got lost is found done. `force` takes fields back that somebody else has set: only
        for the way back to what served. Who has set a field and undone it still owns it; that is no conflict.

        Raises:
            ConflictError: somebody else set a field of the Service, with their name.
            UnavailableError: the lease is gone, or another writer has changed the decision.
        """
        wanted = as_written(replace(after, generation=before.generation + 1))
        for _ in range(_TRIES):
            self._lease.require()
            self._require_same(before)
            self._sent = wanted
            try:
                self._apply(wanted, undisturbed=self.undisturbed(before), force=force)
            except (StaleError, ConflictError, AbsentError) as error:
                if self.read() == wanted:
                    return wanted
                self._require_same(before)
                if isinstance(error, ConflictError | AbsentError):
                    raise
            else:
                return wanted
        raise UnavailableError(
            f"Service {self.name}",
            found=f"changed by somebody else {_TRIES} times while it was to be written",
            wanted="a Service that nobody else keeps writing",
            remedy="Find out who writes it (kubectl get service -o yaml --show-managed-fields).",
        )

    def undisturbed(self, decision: Decision) -> bool:
        """Say whether the Service, as it was last seen, is what the decision makes of it, whoever wrote it last."""
        if self._seen is None:
            return False
        try:
            wanted = self._object(decision)
        except (InputError, IntegrityError, RolloutError):
            return False  # its release isn't known any more
        # Of a selector, nothing may be there besides; the rest the server adds to.
        same = bool(self._seen["spec"].get("selector") == wanted["spec"]["selector"])
        return same and all(_contains(self._seen[part], wanted[part]) for part in ("metadata", "spec"))

    def _decision(self) -> Decision:
        return decision_on(self._seen) if self._seen else Decision()

    def _require_same(self, decision: Decision) -> None:
        """See that the Service, as it was last seen, is there and carries this decision."""
        if self._seen is None and decision.generation:
            raise _gone(self.name)
        if (found := self._decision()) != decision:
            raise _overtaken(self.name, decision, found)

    def _apply(self, decision: Decision, *, undisturbed: bool, force: bool) -> None:
        wanted = self._object(decision)
        if self._seen and (undisturbed or force):
            self._own(self._seen, wanted, ports=not undisturbed)
        self._seen = self._cluster.apply(
            wanted,
            resource_version=self._seen["metadata"]["resourceVersion"] if self._seen else None,
            force=undisturbed or force,
        )

    def _own(self, seen: dict[str, Any], wanted: dict[str, Any], *, ports: bool) -> None:
        """See that an apply of `wanted` leaves nothing else of the selector and (`ports`) of the ports.

        A key that somebody else has set, too, would outlive the apply: the Service would go on leading where it led
        to. This changes who owns it, and no traffic. A port that somebody else has put in the place of ours would
        stay beside it, under the same name, which no server accepts.
        """
        here, there = seen["spec"], wanted["spec"]
        added = [key for key in here.get("selector") or {} if key not in there["selector"]]
        managed = claimed(seen, [("spec", "selector", key) for key in added])
        others = {_port(one) for one in here["ports"]} - {_port(one) for one in there["ports"]}
        if managed is None and not (ports and others):
            return
        meta = {"resourceVersion": seen["metadata"]["resourceVersion"]}
        body: dict[str, Any] = {"metadata": meta if managed is None else meta | {"managedFields": managed}}
        if ports and others:
            body["spec"] = {"ports": there["ports"]}
        self._seen = self._cluster.patch("Service", self.name, body)

    def _object(self, decision: Decision) -> dict[str, Any]:
        return objects.service(
            self.name,
            self._cluster.namespace,
            self._workload_of(decision),
            selector=decision.selector(self.name),
            annotations=decision.annotation(),
        )


def _port(one: dict[str, Any]) -> tuple[int, str]:
    return int(one["port"]), str(one.get("protocol") or "TCP")  # what tells a Service's ports apart


def _contains(found: Any, wanted: Any) -> bool:
    """Say whether everything wanted is in what was found; the server adds its own."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(_contains(found.get(key), value) for key, value in wanted.items())
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_contains, found, wanted))
    return bool(found == wanted)


def _gone(name: str) -> UnavailableError:
    return UnavailableError(
        f"Service {name}",
        found="gone: somebody has deleted it",
        wanted="the one that the rollout began with",
        remedy="Deploy the release again: it makes another one.",
    )


def _overtaken(name: str, before: Decision, found: Decision) -> UnavailableError:
    return UnavailableError(
        f"the rollout of {name} was overtaken",
        found=f"decision {found.generation} by attempt {found.attempt}",
        wanted=f"decision {before.generation}",
        remedy="Another rollout of this service runs, or ran; look at `model-deploy status`.",
    )
