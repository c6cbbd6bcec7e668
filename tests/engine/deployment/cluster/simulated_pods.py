"""Pods that only the API server knows: the cluster schedules and counts them, a thread says that they run, none does.

They are on a node that is only written down, too, as endpoints want one; its taint keeps everything else away.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, ExpiredError, is_ready
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import CONTAINER, REVISION
from airflow_model_deploy.engine.errors import ModelDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = "model-deploy.io/simulated"
_MERGE = "application/merge-patch+json"
_NODES, _LEASES = "/api/v1/nodes", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_HEARTBEAT_S, _WATCH_S = 8.0, 5.0
# Pods of one namespace share no addresses with anything: the range is for benchmarks of networks (RFC 2544).
_FIRST = (198 << 24) + (18 << 16)


class Simulation:
    """One node that isn't there, and what is known of the pods on it."""

    def __init__(self, cluster: Cluster) -> None:
        self.name = f"simulated-{secrets.token_hex(4)}"
        self.revisions: dict[str, str] = {}  # by address
        self._cluster = cluster
        self._numbers = itertools.count(secrets.randbelow(1 << 16))
        self._known: set[str] = set()
        self.ended = threading.Event()

    @property
    def placement(self) -> dict[str, Any]:
        """What a Workload takes so that its pods are simulated."""
        tolerations = ({"key": LABEL, "operator": "Exists"},)
        return {"node_selector": {LABEL: self.name}, "tolerations": tolerations, "topology_key": None}

    def add_node(self) -> None:
        """Write the node down, ready, with room for everything."""
        room = {"cpu": "1000", "memory": "1000Gi", "ephemeral-storage": "1000Gi", "pods": "1000"}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Simulated",
            "message": "only written down",
            "lastHeartbeatTime": _now(),
            "lastTransitionTime": _now(),
        }
        taint = {"key": LABEL, "value": self.name, "effect": "NoSchedule"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {LABEL: self.name}},
            "spec": {"taints": [taint]},
            "status": {"capacity": room, "allocatable": room, "conditions": [ready]},
        }
        self._cluster._send("POST", _NODES, body=node)
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": _now()},
        }
        self._cluster._send("POST", _LEASES, body=lease)

    def remove_node(self) -> None:
        """Remove what `add_node` has written; and what a test that was killed has left."""
        left = self._cluster._send("GET", _NODES, query={"labelSelector": LABEL})["items"]
        for name in [self.name, *(node["metadata"]["name"] for node in left if not is_ready(node))]:
            for path in (f"{_NODES}/{name}", f"{_LEASES}/{name}"):
                with contextlib.suppress(ModelDeployError):
                    self._cluster._send("DELETE", path)

    def heartbeats(self) -> None:
        """Say that the node lives, until the end."""
        while not self.ended.wait(_HEARTBEAT_S):
            with contextlib.suppress(ModelDeployError):
                body = {"spec": {"renewTime": _now()}}
                self._cluster._send("PATCH", f"{_LEASES}/{self.name}", body=body, content_type=_MERGE)

    def pods(self) -> None:
        """Let pods on the node run as soon as they are there, and be gone as soon as they are to go."""
        while not self.ended.is_set():
            with contextlib.suppress(ModelDeployError, ExpiredError):
                found, version = self._cluster.listing("Pod", {})
                for pod in found:
                    self._see(pod)
                for what, pod in self._cluster.watch("Pod", {}, version, _WATCH_S):
                    if what in ("ADDED", "MODIFIED"):
                        self._see(pod)

    def _see(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        if pod["spec"].get("nodeName") != self.name:
            return
        path = f"/api/v1/namespaces/{self._cluster.namespace}/pods/{meta['name']}"
        with contextlib.suppress(ModelDeployError):
            if meta.get("deletionTimestamp"):
                self._cluster._send("DELETE", path, query={"gracePeriodSeconds": "0"})
            elif meta["uid"] not in self._known:
                self._known.add(meta["uid"])
                address = _address(next(self._numbers))
                self.revisions[address] = meta["labels"].get(REVISION, "")
                self._cluster._send(
                    "PATCH", f"{path}/status", body={"status": _running(address)}, content_type=_MERGE
                )


@contextmanager
def simulated(cluster: Cluster) -> Iterator[Simulation]:
    """Simulate the pods that ask for it, while the block lasts; `cluster` is for this alone."""
    simulation = Simulation(cluster)
    threads = [threading.Thread(target=one) for one in (simulation.heartbeats, simulation.pods)]
    try:
        simulation.add_node()
        for thread in threads:
            thread.start()
        yield simulation
    finally:
        # Pods that nobody confirms the end of would keep their namespace.
        _emptied(cluster)
        simulation.ended.set()
        for thread in threads:
            if thread.is_alive():
                thread.join()
        simulation.remove_node()


def _emptied(cluster: Cluster) -> None:
    for deployment in cluster.list("Deployment", {}):
        cluster.delete("Deployment", deployment["metadata"]["name"])
    until = time.monotonic() + 20
    while cluster.list("Pod", {}) and time.monotonic() < until:
        time.sleep(0.1)


def _running(address: str) -> dict[str, Any]:
    now = _now()
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    container = {
        "name": CONTAINER,
        "ready": True,
        "started": True,
        "restartCount": 0,
        "image": "simulated",
        "imageID": "",
        "state": {"running": {"startedAt": now}},
    }
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": [container],
    }


def _address(number: int) -> str:
    value = _FIRST + 1 + number % ((1 << 17) - 2)
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
