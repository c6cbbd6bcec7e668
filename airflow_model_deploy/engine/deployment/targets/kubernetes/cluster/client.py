"""The objects of one namespace, over the API's own JSON: read, written and watched. Waits for nothing but a retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import kinds
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import JSON, Calls, Object
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.refusals import (
    AbsentError,
    ExpiredError,
    refusal,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import MANAGER, SCALER
from airflow_model_deploy.engine.errors import ModelDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
_LOG_BYTES = 1 << 16

# Named here: inside the class, `list` is the method.
Objects = list[Object]
Lines = list[str]


class Cluster(Calls):
    """One namespace of a cluster. Threads may share it; use as a context manager.

    Every call to the API goes through `_send`, each try of it for itself. A call that got no answer, or "not now",
    is tried again with growing pauses; so is a refusal right after that, as an API server that has just started
    doesn't know its roles yet.

    Args:
        connection: the cluster.
        namespace: whose objects are meant.
        log: takes a line when a call is tried again.
        patience_s: how long one call is tried again before its error is raised.
        timeout_s: bound for each wait on one answer.
    """

    def get(self, kind: str, name: str) -> Object | None:
        """An object as the server has it, or None where there is none of that name, or no such kind."""
        try:
            return self._ask("GET", kinds.path(kind, self.namespace, name))
        except AbsentError:
            return None

    def list(self, kind: str, selector: Mapping[str, str]) -> Objects:
        """The objects with these labels; none where the server doesn't serve the kind."""
        return self.listing(kind, selector)[0]

    def listing(
        self, kind: str, selector: Mapping[str, str], *, name: str | None = None
    ) -> tuple[Objects, str]:
        """The objects with these labels (and this name), and the version to watch them from."""
        try:
            found = self._call("GET", kinds.path(kind, self.namespace), query=_choice(selector, name))
        except AbsentError:
            return [], ""
        # A list leaves out what its items have in common.
        head = {"apiVersion": kinds.api_version(kind), "kind": kind}
        return [head | item for item in found.get("items") or ()], str(found["metadata"]["resourceVersion"])

    def create(self, obj: Object) -> Object:
        """Create an object.

        Raises:
            ExistsError: there is one of that name. It may be our own, from a call whose answer was lost.
        """
        return self._ask("POST", kinds.path(obj["kind"], self.namespace), query=_writing(), body=obj)

    def apply(
        self,
        obj: Object,
        *,
        resource_version: str | None = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply: create the object, or make our fields of it what `obj` says.

        Args:
            obj: the fields that are ours; those that we had before and that are missing here are removed.
            resource_version: change it only if it is still at this version (compare and swap). Of what is gone,
                some servers make a new one nevertheless; never of a Service.
            force: take fields that another manager owns.
            dry_run: change nothing; the answer is what would be.

        Raises:
            ConflictError: another manager owns a field that would change.
            StaleError: it is at another version. After a lost answer that may be our own doing: the first try was
                carried out, the second finds the version gone. Read it again to know.
        """
        meta = obj["metadata"]
        if resource_version is not None:
            obj = obj | {"metadata": meta | {"resourceVersion": resource_version}}
        query = _writing() | {"force": "true" if force else "false"} | ({"dryRun": "All"} if dry_run else {})
        path = kinds.path(obj["kind"], self.namespace, meta["name"])
        return self._ask("PATCH", path, query=query, body=obj, content_type=APPLY)

    def replace(self, obj: Object) -> Object:
        """Replace an object whole; StaleError where it isn't at the version that `obj` was read at."""
        path = kinds.path(obj["kind"], self.namespace, obj["metadata"]["name"])
        return self._ask("PUT", path, query=_writing(), body=obj)

    def patch(self, kind: str, name: str, body: Object) -> Object:
        """Merge `body` into an object, whoever owns its fields; AbsentError where it isn't there."""
        path = kinds.path(kind, self.namespace, name)
        return self._ask("PATCH", path, query=_writing(), body=body, content_type=MERGE)

    def scale(self, name: str, replicas: int) -> None:
        """Set how many pods a Deployment has, through its `scale` alone, which an apply doesn't touch."""
        path = kinds.path("Deployment", self.namespace, name, "scale")
        body = {"spec": {"replicas": replicas}}
        self._call("PATCH", path, query=_writing(SCALER), body=body, content_type=MERGE)

    def delete(self, kind: str, name: str) -> bool:
        """Delete an object and, in the background, what it owns; whether it was there."""
        path = kinds.path(kind, self.namespace, name)
        try:
            self._call("DELETE", path, query={"propagationPolicy": "Background"})
        except AbsentError:
            return False
        return True

    def watch(
        self,
        kind: str,
        selector: Mapping[str, str],
        resource_version: str,
        timeout_s: float,
        *,
        name: str | None = None,
    ) -> Iterator[tuple[str, Object]]:
        """What happens to the objects after a version: ("ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK", object).

        Ends after the time, or earlier with its connection: go on from the last version seen.

        Raises:
            ExpiredError: the server has forgotten that version; list again.
        """
        query = _choice(selector, name) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(timeout_s))),
        }
        for what, obj in self._call("GET", kinds.path(kind, self.namespace), query=query):
            if what == "ERROR":
                raise _broken(kind, obj)
            yield what, obj

    def serves(self, kind: str) -> bool:
        """Whether the server has this kind in the version that we speak; asked once."""
        group = kinds.group_path(kind)
        if group not in self._served:
            self._served[group] = self._kinds_of(group)
        return kind in self._served[group]

    def version(self) -> str:
        """The server's version, as in "v1.30.2"."""
        return str(self._call("GET", "/version")["gitVersion"])

    def log_tail(
        self, pod: str, lines: int = 20, *, container: str | None = None, previous: bool = False
    ) -> str:
        """The last lines that a container wrote (`previous`: its last run); "none" where there are none."""
        query = {"tailLines": str(lines), "limitBytes": str(_LOG_BYTES)}
        query |= {"container": container} if container else {}
        query |= {"previous": "true"} if previous else {}
        try:
            said = self._call("GET", kinds.path("Pod", self.namespace, pod, "log"), query=query)
        except ModelDeployError:
            return "none"
        return str(said).strip() or "none"

    def events(self, name: str) -> Lines:
        """The warnings about the objects of that name, oldest first, as "reason: message"."""
        query = {"fieldSelector": f"involvedObject.name={name},type=Warning"}
        found = self._call("GET", kinds.path("Event", self.namespace), query=query).get("items") or []
        return [f"{e.get('reason')}: {e.get('message')}" for e in sorted(found, key=_happened)]

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        answer: Object = self._call(method, path, query=query, body=body, content_type=content_type)
        return answer

    def _kinds_of(self, group: str) -> frozenset[str]:
        try:
            found = self._call("GET", group).get("resources") or ()
        except AbsentError:
            return frozenset()
        return frozenset(str(resource.get("kind")) for resource in found)


def _writing(manager: str = MANAGER) -> dict[str, str]:
    # A field that the server doesn't know is refused, by servers that know this parameter.
    return {"fieldManager": manager, "fieldValidation": "Strict"}


def _choice(selector: Mapping[str, str], name: str | None) -> dict[str, str]:
    query = {"labelSelector": ",".join(f"{k}={v}" for k, v in sorted(selector.items()))} if selector else {}
    return query | ({"fieldSelector": f"metadata.name={name}"} if name else {})


def _broken(kind: str, status: Object) -> ModelDeployError:
    error = refusal(f"watching {kind}", int(status.get("code") or 500), status)
    return error if isinstance(error, ExpiredError) else ExpiredError(error.thing, found=error.found)


def _happened(event: Object) -> str:
    meta = event.get("metadata") or {}
    return str(event.get("lastTimestamp") or event.get("eventTime") or meta.get("creationTimestamp") or "")
