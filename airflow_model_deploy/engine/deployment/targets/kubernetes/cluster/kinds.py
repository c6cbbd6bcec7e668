"""Where each kind of object that we handle lives in the API; nothing of what such an object says."""

from __future__ import annotations

from urllib.parse import quote

from airflow_model_deploy.engine.errors import InputError

_KINDS = {
    "ConfigMap": ("v1", "configmaps"),
    "Deployment": ("apps/v1", "deployments"),
    "EndpointSlice": ("discovery.k8s.io/v1", "endpointslices"),
    "Endpoints": ("v1", "endpoints"),
    "Event": ("v1", "events"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "httproutes"),
    "HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "Pod": ("v1", "pods"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "ReplicaSet": ("apps/v1", "replicasets"),
    "Secret": ("v1", "secrets"),
    "Service": ("v1", "services"),
    "ServiceAccount": ("v1", "serviceaccounts"),
}


def api_version(kind: str) -> str:
    """The API version that we speak for a kind, as in an object's `apiVersion`."""
    return _entry(kind)[0]


def plural(kind: str) -> str:
    """A kind's name in paths and in RBAC rules."""
    return _entry(kind)[1]


def group_path(kind: str) -> str:
    """The path of the kind's API version."""
    version = api_version(kind)
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def path(kind: str, namespace: str, name: str | None = None, subresource: str = "") -> str:
    """The path of a namespace's objects of a kind, or of one of them."""
    parts = [group_path(kind), "namespaces", quote(namespace, safe=""), plural(kind)]
    if name is not None:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def described(address: str) -> str:
    """A path as a reader would name what is there: "deployments/web in namespace prod"."""
    _, found, rest = address.partition("/namespaces/")
    namespace, _, what = rest.partition("/")
    return f"{what} in namespace {namespace}" if found and what else address


def _entry(kind: str) -> tuple[str, str]:
    try:
        return _KINDS[kind]
    except KeyError:
        raise InputError("a kind of object", found=kind, wanted=" or ".join(_KINDS)) from None
