"""Reads and writes a service's decision: one guarded write a change, on the Service that carries it out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import ConflictError, StaleError
from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision, decision_on
from airflow_model_deploy.engine.errors import UnavailableError

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
        return decision_on(self._seen) if self._seen else Decision()

    def latest(self, known: Decision) -> Decision:
        """Return the decision as it is: a write of our own may have been carried out though its answer never came."""
        if self._sent in (None, known):
            return known
        found = self.read()
        return found if found == self._sent else known

    def write(self, before: Decision, after: Decision, *, force: bool = False) -> Decision:
        """Replace the decision that was read as `before`.

        A write whose answer got lost is found done. `force` takes fields back that somebody else has set: only
        for the way back to what served.

        Raises:
            ConflictError: somebody else set a field of the Service, with their name.
            UnavailableError: the lease is gone, or another writer has changed the decision.
        """
        wanted = replace(after, generation=before.generation + 1)
        for _ in range(_TRIES):
            self._lease.require()
            self._sent = wanted
            seen = self._seen
            try:
                self._seen = self._cluster.apply(
                    self._object(wanted),
                    resource_version=seen["metadata"]["resourceVersion"] if seen else None,
                    force=force,
                )
            except (StaleError, ConflictError) as error:
                found = self.read()
                if found == wanted:
                    return wanted
                if found != before:
                    raise _overtaken(self.name, before, found) from error
                if isinstance(error, ConflictError):
                    raise
            else:
                return wanted
        raise UnavailableError(
            f"Service {self.name}",
            found=f"changed by somebody else {_TRIES} times while it was to be written",
            wanted="a Service that nobody else keeps writing",
            remedy="Find out who writes it (kubectl get service -o yaml --show-managed-fields).",
        )

    def _object(self, decision: Decision) -> dict[str, Any]:
        return objects.service(
            self.name,
            self._cluster.namespace,
            self._workload_of(decision),
            selector=decision.selector(self.name),
            annotations=decision.annotation(),
        )


def _overtaken(name: str, before: Decision, found: Decision) -> UnavailableError:
    return UnavailableError(
        f"the rollout of {name} was overtaken",
        found=f"decision {found.generation} by attempt {found.attempt}",
        wanted=f"decision {before.generation}",
        remedy="Another rollout of this service runs, or ran; look at `model-deploy status`.",
    )
