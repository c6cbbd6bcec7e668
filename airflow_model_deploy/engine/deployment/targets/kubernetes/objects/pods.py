"""The pods of a revision: one server each, confined as the Pod Security level `restricted` asks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import container_security, pod_security
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import CONTAINER, PORT, labels, only
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.probes import probes
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.quantities import binary, cores

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.target import Target
    from airflow_model_deploy.engine.packaging import Workload

_ARGUMENTS = ("--servable", "/servable", "--host", "0.0.0.0", "--port", str(PORT))  # noqa: S104 - the pod's own
# Endpoints lose a pod that is to end a moment later than the pod is told: it goes on serving for as long.
_LEAVE_S = 5
_GRACE_MARGIN_S = 5
# What a server writes besides its logs is next to nothing; the request is what logs may take between rotations.
_SCRATCH = 64 << 20
# The root is read-only; these are what a program may expect to write to, each with its bound.
_FOLDERS = (("tmp", "/tmp", 64 << 20), ("run", "/run/model-server", 16 << 20))  # noqa: S108 - inside the container


def pod_template(target: Target, revision: str | None) -> dict[str, Any]:
    """Return the template of a revision's pods; without a revision, what its digest is taken of."""
    return {
        "metadata": {
            "labels": labels(target.name, revision),
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(PORT),
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": {
            "serviceAccountName": target.name,
            "automountServiceAccountToken": False,
            # Else every Service of the namespace becomes variables in the server's environment.
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": math.ceil(_LEAVE_S + target.workload.drain_s + _GRACE_MARGIN_S),
            "securityContext": pod_security(),
            "containers": [_container(target)],
            "volumes": [
                {"name": name, "emptyDir": {"sizeLimit": binary(size)}} for name, _, size in _FOLDERS
            ],
        }
        | _placement(target, revision),
    }


def _container(target: Target) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": target.image,
        "imagePullPolicy": "IfNotPresent",
        # The entry point is the image's; these replace its command, to add the time to drain.
        "args": [*_ARGUMENTS, "--drain-seconds", str(float(target.workload.drain_s))],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": _resources(target),
        "securityContext": container_security(),
        "volumeMounts": [{"name": name, "mountPath": path} for name, path, _ in _FOLDERS],
        "lifecycle": {
            "preStop": {"exec": {"command": ["python3", "-c", f"import time; time.sleep({_LEAVE_S})"]}}
        },
    } | probes(target.workload)


def _resources(target: Target) -> dict[str, Any]:
    """Memory is bounded by its request, so that a node never promises it twice; CPU only where asked."""
    workload = target.workload
    cpu = cores(workload.cpu_request or target.resources.cpu)
    memory = binary(target.resources.memory_bytes)
    devices = {workload.gpu_resource: str(workload.gpus)} if workload.gpus else {}
    return {
        "requests": {"cpu": cpu, "memory": memory, "ephemeral-storage": binary(_SCRATCH)} | devices,
        "limits": {"memory": memory} | ({"cpu": cpu} if workload.cpu_limit else {}) | devices,
    }


def _placement(target: Target, revision: str | None) -> dict[str, Any]:
    """Where the pods may run; what isn't set is left to the cluster."""
    workload = target.workload
    wanted = {
        "nodeSelector": dict(workload.node_selector),
        "tolerations": [dict(one) for one in workload.tolerations],
        "affinity": workload.affinity,
        "priorityClassName": workload.priority_class,
        "imagePullSecrets": [{"name": name} for name in workload.image_pull_secrets],
        "topologySpreadConstraints": _spread(target.name, workload, revision),
    }
    return {key: value for key, value in wanted.items() if value}


def _spread(name: str, workload: Workload, revision: str | None) -> list[dict[str, Any]]:
    """Spread over nodes or zones, but rather run together than not at all."""
    if workload.topology_key is None:
        return []
    return [
        {
            "maxSkew": 1,
            "topologyKey": workload.topology_key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": only(name, revision)},
        }
    ]
