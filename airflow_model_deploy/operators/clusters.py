"""From Airflow's connections to a namespace of a cluster, and from the author's settings to a step's fields.

Only what is named here is taken from a connection: whoever may edit connections is trusted less than the author of
a Dag. What it holds goes to a step or an API server privately, never into a request, a log or XCom.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.execution import given
from airflow_model_deploy.version_compat import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.deployment import kubernetes as k8s

DEFAULT_CONNECTION = "kubernetes_default"
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connection_id(kubernetes: Mapping[str, Any]) -> str:
    """Return the id of the cluster's connection."""
    setting = read_config("model_deploy", "kubernetes_conn_id")
    return str(given(kubernetes.get("conn_id")) or setting or DEFAULT_CONNECTION)


def connection_extras(conn_id: str) -> dict[str, Any]:
    """Return a connection's extra fields; none where nobody has made the default one."""
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    extras: dict[str, Any] = KubernetesHook.get_connection(conn_id).extra_dejson
    return extras


def cluster_fields(
    extras: Mapping[str, Any],
    *,
    in_cluster: bool | None = None,
    path: str | None = None,
    context: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the fields of the engine's `Connection`; what an operator says goes before the connection."""
    found = {
        "in_cluster": _flag(_first(in_cluster, _extra(extras, "in_cluster"))),
        "path": _first(path, _extra(extras, "kube_config_path")),
        "context": _first(context, _extra(extras, "cluster_context")),
        "kubeconfig": _content(config or _extra(extras, "kube_config")),
    }
    chosen = [name for name in ("in_cluster", "path", "kubeconfig") if found[name]]
    if len(chosen) > 1:
        execution.fail(
            f"the connection to the cluster; found: {' and '.join(chosen)}; wanted: one of them; correct the connection"
        )
    return {name: value for name, value in found.items() if value not in (None, "", False)}


def cluster_connections(kubernetes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cluster as a step takes it, from the rendered fields of a `KubernetesConfig`."""
    return {"cluster": cluster_fields(connection_extras(connection_id(kubernetes)))}


def namespace_of(kubernetes: Mapping[str, Any]) -> str:
    """Return the namespace: the one named, else the connection's, else the worker's own, else "default"."""
    named = given(kubernetes.get("namespace"))
    return str(named or connection_namespace(connection_extras(connection_id(kubernetes))))


def connection_namespace(extras: Mapping[str, Any]) -> str:
    """Return the namespace where none is named."""
    own = _OWN_NAMESPACE.read_text().strip() if _OWN_NAMESPACE.is_file() else ""
    return str(_extra(extras, "namespace") or own or "default")


def open_cluster(
    fields: Mapping[str, Any], namespace: str, *, log: Any = None, patience_s: float = 60.0
) -> k8s.Cluster:
    """Return one namespace of a cluster; use it as a context manager."""
    from airflow_model_deploy.engine.deployment import kubernetes

    tell = log.warning if log is not None else lambda _: None
    timeout_s = min(30.0, patience_s)
    connection = kubernetes.Connection(**fields)
    return kubernetes.Cluster(connection, namespace, log=tell, patience_s=patience_s, timeout_s=timeout_s)


def plan_fields(kubernetes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a `KubernetesConfig` says as the preparation takes it: the workload, and the way to it."""
    from airflow_model_deploy.engine.packaging import Rollout, Workload

    def chosen(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        names = [one.name for one in fields(kind) if one.name in values]
        # A template that rendered to nothing leaves the default; a None of the author's own says something.
        return {name: values[name] for name in names if values[name] not in ("", "None")}

    return {
        "kubernetes": chosen(Workload, kubernetes),
        "rollout": chosen(Rollout, kubernetes.get("rollout") or {}),
    }


def _extra(extras: Mapping[str, Any], name: str) -> Any:
    return extras.get(name) or extras.get(f"extra__kubernetes__{name}") or None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _flag(value: Any) -> Any:
    return value.strip().lower() in ("true", "1", "yes", "on") if isinstance(value, str) else value


def _content(kubeconfig: Any) -> dict[str, Any] | None:
    if kubeconfig is None or isinstance(kubeconfig, dict):
        return kubeconfig
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(kubeconfig)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        # Not what was found: it holds credentials.
        execution.fail(
            "kube_config of the connection to the cluster; found: no kubeconfig; wanted: its content"
        )
    return dict(found or {})
