"""HTTPRoutes in a cluster without a Gateway: their API, and somebody who says of each that it is accepted.

No Gateway can be had here, so nothing carries the weights out; what is tested is what is written, when, and after
which answer.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import ModelDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.deployment import kubernetes

NAME = "httproutes.gateway.networking.k8s.io"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@contextlib.contextmanager
def route_api(cluster: kubernetes.Cluster) -> Iterator[None]:
    """Teach the API server HTTPRoutes, in as much as it has none; forget them afterwards."""
    versions = [
        {
            "name": "v1",
            "served": True,
            "storage": True,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _ANY, "status": _ANY}}},
        }
    ]
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": NAME,
            # The group is protected: this stands for the community's own definition.
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes", "singular": "httproute"},
            "versions": versions,
        },
    }
    cluster._send("POST", _DEFINITIONS, body=definition)
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(ModelDeployError):
                cluster._send("GET", "/apis/gateway.networking.k8s.io/v1")
                break
            assert time.monotonic() < until, "the API server doesn't serve HTTPRoute"
            time.sleep(0.2)
        yield
    finally:
        cluster._send("DELETE", f"{_DEFINITIONS}/{NAME}")


class Gateway:
    """Says of every route what a Gateway would; remembers the weights that it was given, in turn.

    Args:
        cluster: whose routes.
        accepts: its answer.
    """

    def __init__(self, cluster: kubernetes.Cluster, *, accepts: bool = True) -> None:
        self.weights: list[dict[str, int]] = []
        self._cluster, self._accepts = cluster, accepts
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Gateway:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _serve(self) -> None:
        seen: dict[str, int] = {}
        while not self._done.wait(0.1):
            for route in self._cluster.list("HTTPRoute", {}):
                name, generation = route["metadata"]["name"], int(route["metadata"]["generation"])
                if seen.get(name) != generation:
                    seen[name] = generation
                    backends = route["spec"]["rules"][0]["backendRefs"]
                    self.weights.append({one["name"]: one["weight"] for one in backends})
                    self._answer(route, generation)

    def _answer(self, route: dict[str, Any], generation: int) -> None:
        accepted = {"type": "Accepted", "status": "True" if self._accepts else "False"}
        accepted |= {
            "reason": "Accepted" if self._accepts else "NotAllowedByListeners",
            "message": "by this test",
        }
        conditions = [
            accepted,
            {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": ""},
        ]
        parents = [
            {
                "controllerName": "tests/gateway",
                "parentRef": route["spec"]["parentRefs"][0],
                "conditions": [one | {"observedGeneration": generation} for one in conditions],
            }
        ]
        self._cluster._send(
            "PATCH",
            f"/apis/gateway.networking.k8s.io/v1/namespaces/{self._cluster.namespace}/httproutes/"
            f"{route['metadata']['name']}/status",
            body={"status": {"parents": parents}},
            content_type="application/merge-patch+json",
        )
