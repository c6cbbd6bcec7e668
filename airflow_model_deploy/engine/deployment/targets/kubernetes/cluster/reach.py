"""The way from this process to a pod's server and to a Service; starts nothing in the cluster."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import kinds
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.client import Cluster
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.proxy import forwarded
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import PORT
from airflow_model_deploy.engine.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager


class Reach(Protocol):
    """A way in. Each gives a base URL that is good while its block lasts."""

    def pod(self, pod: Mapping[str, Any]) -> AbstractContextManager[str]:
        """The way to one pod's server."""

    def public(self, service: Mapping[str, Any]) -> AbstractContextManager[str]:
        """The way to a Service, which picks a pod for each connection."""


@dataclass(frozen=True)
class DirectReach:
    """The cluster's own addresses, from where they lead somewhere: inside it, mostly."""

    @contextmanager
    def pod(self, pod: Mapping[str, Any]) -> Iterator[str]:
        """Give the pod's own address; UnavailableError where it has none yet."""
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise UnavailableError(f"pod {pod['metadata']['name']}", found="no address yet")
        yield _url(str(address), PORT)

    @contextmanager
    def public(self, service: Mapping[str, Any]) -> Iterator[str]:
        """Give the Service's cluster address; UnavailableError where it has none."""
        address = (service.get("spec") or {}).get("clusterIP")
        if not address or address == "None":
            raise UnavailableError(
                f"Service {service['metadata']['name']}", found="no address in the cluster"
            )
        yield _url(str(address), _port(service))


@dataclass(frozen=True)
class ProxyReach:
    """Through the API server, with our credentials there; needs the verb "create" and "get" on `pods/proxy`.

    A Service is reached through `services/proxy`, where the API server picks the pod, for each request.
    """

    cluster: Cluster

    def pod(self, pod: Mapping[str, Any]) -> AbstractContextManager[str]:
        """Open a local port that leads to the pod's server."""
        return self._forwarded("Pod", str(pod["metadata"]["name"]), PORT)

    def public(self, service: Mapping[str, Any]) -> AbstractContextManager[str]:
        """Open a local port that leads to the Service."""
        return self._forwarded("Service", str(service["metadata"]["name"]), _port(service))

    def _forwarded(self, kind: str, name: str, port: int) -> AbstractContextManager[str]:
        where = kinds.path(kind, self.cluster.namespace)
        return forwarded(self.cluster, f"{where}/{quote(name, safe='')}:{port}/proxy")


def reach_of(cluster: Cluster, mode: Literal["auto", "direct", "proxy"] = "auto") -> Reach:
    """The way in that suits where we run: direct inside the cluster, else through the API server."""
    if mode not in ("auto", "direct", "proxy"):
        raise InputError("the way to the pods", found=mode, wanted="auto, direct or proxy")
    if mode == "direct" or (mode == "auto" and cluster.connection.inside):
        return DirectReach()
    return ProxyReach(cluster)


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _port(service: Mapping[str, Any]) -> int:
    return int(service["spec"]["ports"][0]["port"])
