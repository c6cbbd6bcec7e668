"""The driver's pod: what it runs, under which rights and limits. Knows nothing of how it is waited for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import container_security, pod_security
from airflow_model_deploy.operators import clusters, execution
from airflow_model_deploy.operators.execution import given
from airflow_model_deploy.operators.verdict import Driven
from airflow_model_deploy.version_compat import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

# On the driver's pod: what it was sent to do, for whoever finds it again.
DRIVEN = "model-deploy.io/driven"
# Time for the driver to put the traffic back.
GRACE_S = 60
# What KubernetesPodOperator gets where neither the author nor default_args say otherwise.
DEFAULTS: dict[str, Any] = {
    "termination_grace_period": GRACE_S,
    "startup_timeout_seconds": 600,  # the node may have to pull the driver's image
    "startup_check_interval_seconds": 2,
    "termination_message_policy": "FallbackToLogsOnError",
    "log_events_on_failure": True,
    "log_pod_spec_on_failure": False,
    "automount_service_account_token": True,  # the driver writes to its cluster
    "container_name_log_prefix_enabled": False,
    "security_context": pod_security(),
    "container_security_context": container_security(),
}


def adopt(operator: KubernetesPodOperator, settings: Mapping[str, Any]) -> None:
    """Give a rendered operator what a `KubernetesConfig` says; its own arguments go before it."""
    operator.kubernetes_conn_id = given(operator.kubernetes_conn_id) or clusters.connection_id(settings)
    named = given(operator.namespace) or given(settings.get("namespace"))
    operator.namespace = named or clusters.namespace_of({"conn_id": operator.kubernetes_conn_id})
    operator.image = _image(operator.image, settings)
    operator.service_account_name = operator.service_account_name or given(settings.get("service_account"))
    operator.image_pull_secrets = operator.image_pull_secrets or _pull_secrets(settings)
    operator.container_resources = operator.container_resources or _resources()
    if given(settings.get("deferrable")) is not None:
        operator.deferrable = str(settings["deferrable"]).strip().lower() in ("true", "1", "yes", "on")
    volume, mount = _scratch()
    operator.volumes = [*operator.volumes, volume]
    operator.volume_mounts = [*operator.volume_mounts, mount]


def send(operator: KubernetesPodOperator, driven: Driven) -> None:
    """Make an operator's pod the driver of one piece of work."""
    operator.name = operator.name or f"{driven.service}-{driven.step}"
    operator.arguments = _arguments(driven)
    operator.labels = {**(operator.labels or {}), **_labels(driven)}
    operator.annotations = {**(operator.annotations or {}), DRIVEN: driven.to_json()}


def driven_by(pod: Any) -> Driven | None:
    """Return what a pod was sent to do; None where it is no driver."""
    text = (pod.metadata.annotations or {}).get(DRIVEN) if pod is not None else None
    return Driven.from_json(text) if text else None


def exit_code(operator: KubernetesPodOperator) -> int | None:
    """Return the exit code of an operator's pod; None while it runs, or where nobody knows."""
    for pod in (operator.remote_pod, operator.pod):
        for one in (pod.status.container_statuses if pod is not None and pod.status else None) or []:
            if one.name == operator.base_container_name and one.state and one.state.terminated:
                return int(one.state.terminated.exit_code)
    return None


def _arguments(driven: Driven) -> list[str]:
    """Return the driver's arguments: the step, and its request, which holds no secret."""
    spec = {
        "target": "kubernetes",
        "namespace": driven.namespace,
        "name": driven.service,
        "attempt": driven.attempt,
    }
    request = {
        "schema_version": 1,
        "step": driven.step,
        "spec": spec | ({"delivered": driven.delivered} if driven.delivered else {}),
        "inputs": {},
        "store": "file:///tmp/store",
        "result": "result.json",
    }
    return ["run", driven.step, "--json", json.dumps(request, sort_keys=True)]


def _labels(driven: Driven) -> dict[str, str]:
    """Return the labels of a driver's pod: never one that a Service of ours selects by."""
    from airflow_model_deploy.engine.deployment import kubernetes

    known = {
        "app.kubernetes.io/managed-by": "model-deploy",
        "model-deploy.io/drives": driven.service,
        "model-deploy.io/step": driven.step,
        "model-deploy.io/wanted": driven.revision or "previous",
    }
    return known | kubernetes.DRIVER


def _image(named: str | None, settings: Mapping[str, Any]) -> str:
    """Return the driver's image: the pod's own, the cluster's settings', or `[model_deploy] driver_image`."""
    found = given(named) or given(settings.get("driver_image")) or read_config("model_deploy", "driver_image")
    if not found:
        execution.fail(
            "no driver image is named; found: none; wanted: one that `model-deploy image driver` made; set"
            " `driver_image` of KubernetesConfig or [model_deploy] driver_image"
        )
    return str(found)


def _scratch() -> tuple[Any, Any]:
    """Return the volume at /tmp, the one place that a driver may write to, and its mount."""
    from kubernetes.client import models

    volume = models.V1Volume(name="tmp", empty_dir=models.V1EmptyDirVolumeSource(size_limit="256Mi"))
    return volume, models.V1VolumeMount(name="tmp", mount_path="/tmp")  # noqa: S108 - the pod's own


def _resources() -> Any:
    """Return what the driver needs: it asks golden requests and waits."""
    from kubernetes.client import models

    return models.V1ResourceRequirements(
        requests={"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
        limits={"memory": "512Mi", "ephemeral-storage": "512Mi"},
    )


def _pull_secrets(settings: Mapping[str, Any]) -> list[Any]:
    """Return the references to the Secrets by which images are pulled."""
    from kubernetes.client import models

    return [models.V1LocalObjectReference(name=name) for name in settings.get("image_pull_secrets") or ()]
