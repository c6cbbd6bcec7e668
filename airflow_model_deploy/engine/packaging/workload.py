"""How a release is to run in a Kubernetes cluster: copies, placement, exposure. Knows no object of the API."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from airflow_model_deploy.engine.packaging.jsonobject import JsonObject, is_number, is_positive
from airflow_model_deploy.engine.packaging.settings import (
    are_objects,
    is_object,
    is_text,
    is_whole,
    maps_text,
    require,
    with_tuples,
)

Exposure = Literal["ClusterIP", "NodePort", "LoadBalancer"]
_NODE_PORTS = (30000, 32767)
_TUPLES = ("tolerations", "image_pull_secrets", "ingress_from", "hostnames")
_GATEWAY = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?/)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_TOLERATION = frozenset({"key", "operator", "value", "effect", "tolerationSeconds"})
_AFFINITY = frozenset({"nodeAffinity", "podAffinity", "podAntiAffinity"})
_PEER = frozenset({"ipBlock", "namespaceSelector", "podSelector"})
_AS_THE_API = "Write it as Kubernetes does, in JSON."


@dataclass(frozen=True)
class Workload(JsonObject):
    """The author's settings of a service's pods, and what was measured of its model.

    Args:
        replicas: copies of the server; where the number is scaled automatically, how many it begins with.
        exposure: how the Service is reached; the default only from inside the cluster.
        port: the Service's.
        node_port: 30000 to 32767; None: the cluster chooses.
        service_annotations: of the Service, such as a cloud's settings of its load balancer.
        gateway: "name" or "namespace/name" of a Gateway that leads to the service by an HTTPRoute, which also gives a
            canary its share, request by request. Experimental. None: no route.
        hostnames: that the route answers to; empty: all of the Gateway's.
        gpus: whole devices of a pod.
        gpu_resource: the device plugin's name for them.
        node_selector: labels that a node must have.
        tolerations: of taints, as the API writes them.
        affinity: as the API writes it.
        topology_key: node label over whose values a revision's pods are spread; None: not spread.
        image_pull_secrets: names of Secrets in the namespace.
        min_replicas: the least that an autoscaler may leave; None: `replicas`.
        max_replicas: the most; None: nothing scales but the rollout.
        cpu_request: cores that a pod asks of its node; None: one a thread of the server.
        cpu_target_percent: of the CPU request, which an autoscaler aims at.
        ingress_from: NetworkPolicy peers that may send requests; empty: everybody. Name what collects the metrics, too.
        priority_class: name of a PriorityClass.
        cpu_limit: also bound the CPU by its request. Off by default: a bound throttles a server that could
            answer faster on an idle node.
        drain_s: how long a server that ends may take to answer what it accepted.
        model_bytes: the servable's size; None: as `prepare` finds it.
        load_s: from start to ready; None: as the test measured it.
    """

    # pydantic would ignore a misspelt setting.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    replicas: int = 2
    exposure: Exposure = "ClusterIP"
    port: int = 80
    node_port: int | None = None
    service_annotations: dict[str, str] = field(default_factory=dict)
    gateway: str | None = None
    hostnames: tuple[str, ...] = ()
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] | None = None
    topology_key: str | None = "kubernetes.io/hostname"
    image_pull_secrets: tuple[str, ...] = ()
    min_replicas: int | None = None
    max_replicas: int | None = None
    cpu_request: float | None = None
    cpu_target_percent: int = 80
    ingress_from: tuple[dict[str, Any], ...] = ()
    priority_class: str | None = None
    cpu_limit: bool = False
    drain_s: float = 10.0
    model_bytes: int | None = None
    load_s: float | None = None

    def __post_init__(self) -> None:
        self._check_scale()
        self._check_reach()
        self._check_placement()
        self._check_pod()

    @classmethod
    def _parsed(cls, value: dict[str, Any]) -> dict[str, Any]:
        return with_tuples(value, _TUPLES)

    def _check(self, name: str, ok: bool, wanted: str, remedy: str) -> None:
        require(ok, f"workload: {name}", getattr(self, name), wanted, remedy)

    def _check_scale(self) -> None:
        self._check("replicas", is_whole(self.replicas, 1), "1 or more", "Two survive the loss of a node.")
        least, most = self.min_replicas, self.max_replicas
        if most is not None:
            self._check("max_replicas", is_whole(most, 1), "1 or more, or null", "Null: no autoscaler.")
            low = self.replicas if least is None else least
            remedy = f"Raise max_replicas ({most}), or set both lower."
            ok = is_whole(low, 1, most)
            require(ok, "workload: min_replicas (default: replicas)", low, "1 to max_replicas", remedy)
            self._check(
                "replicas", low <= self.replicas <= most, f"{low} to {most}", "Begin within the bounds."
            )
        else:
            remedy = "Set max_replicas, too; or `replicas` alone."
            self._check("min_replicas", least is None, "null without max_replicas", remedy)
        target = self.cpu_target_percent
        self._check(
            "cpu_target_percent", is_whole(target, 1, 1000), "1 to 1000", "80 leaves room for a peak."
        )

    def _check_reach(self) -> None:
        kinds = get_args(Exposure)
        self._check(
            "exposure", self.exposure in kinds, f"one of {kinds}", "ClusterIP stays inside the cluster."
        )
        self._check("port", is_whole(self.port, 1, 65535), "1 to 65535", "80 is the default.")
        if self.node_port is not None:
            ok, wanted = is_whole(self.node_port, *_NODE_PORTS), "30000 to 32767, or null"
            self._check("node_port", ok, wanted, "Null: the cluster chooses a free one.")
            ok, wanted = self.exposure != "ClusterIP", "null with exposure ClusterIP"
            self._check("node_port", ok, wanted, "Set exposure to NodePort or LoadBalancer.")
        ok = maps_text(self.service_annotations)
        self._check("service_annotations", ok, "a mapping of text to text", 'Put "true" and "1" in quotes.')
        ok = self.gateway is None or (is_text(self.gateway) and bool(_GATEWAY.fullmatch(self.gateway)))
        self._check("gateway", ok, "'name' or 'namespace/name', or null", "Name a Gateway of the cluster.")
        ok = isinstance(self.hostnames, tuple) and all(map(is_text, self.hostnames))
        self._check("hostnames", ok, "host names", "Such as ['digits.example.org'].")
        ok, wanted = are_objects(self.ingress_from, _PEER), f"mappings with keys among {sorted(_PEER)}"
        self._check("ingress_from", ok, wanted, f"One mapping a NetworkPolicy peer. {_AS_THE_API}")

    def _check_placement(self) -> None:
        ok = maps_text(self.node_selector)
        self._check("node_selector", ok, "a mapping of text to text", 'Put "true" and "1" in quotes.')
        ok, wanted = (
            are_objects(self.tolerations, _TOLERATION),
            f"mappings with keys among {sorted(_TOLERATION)}",
        )
        self._check("tolerations", ok, wanted, f"One mapping a toleration. {_AS_THE_API}")
        ok = self.affinity is None or is_object(self.affinity, _AFFINITY)
        self._check("affinity", ok, f"a mapping with keys among {sorted(_AFFINITY)}, or null", _AS_THE_API)
        for name, remedy in (
            ("topology_key", "Null: no spread."),
            ("priority_class", "Null: the cluster's own."),
        ):
            value = getattr(self, name)
            self._check(name, value is None or is_text(value), "a name, or null", remedy)

    def _check_pod(self) -> None:
        self._check(
            "gpus", is_whole(self.gpus, 0), "0 or more whole devices", "A share of a device has its own name."
        )
        ok = is_text(self.gpu_resource) and "/" in self.gpu_resource
        self._check(
            "gpu_resource", ok, "'<vendor>/<resource>'", "The device plugin says it, as nvidia.com/gpu."
        )
        secrets = self.image_pull_secrets
        ok = isinstance(secrets, tuple) and all(map(is_text, secrets))
        self._check("image_pull_secrets", ok, "names of Secrets", "Never the credentials themselves.")
        ok = self.cpu_request is None or is_positive(self.cpu_request)
        self._check("cpu_request", ok, "above 0 cores, or null", "Null: one a thread of the server.")
        self._check(
            "cpu_limit", type(self.cpu_limit) is bool, "true or false", "False: no bound on idle nodes."
        )
        ok = is_positive(self.drain_s) and self.drain_s <= 3600
        self._check("drain_s", ok, "above 0, at most 3600 seconds", "A little more than the slowest request.")
        for name in ("model_bytes", "load_s"):
            value = getattr(self, name)
            ok = value is None or (is_number(value) and value >= 0)
            self._check(name, ok, "0 or more, or null", "Null: as it is measured.")
