"""The pod of a step and the Secret it reads, as the API has them; knows no cluster and no Airflow."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import container_security, pod_security
from airflow_model_deploy.runners.base import step_environment

if TYPE_CHECKING:
    from airflow_model_deploy.engine.steps import StepRequest

CONTAINER = "base"  # as KubernetesPodOperator names its container
STEP, TASK = "model-deploy.io/step", "model-deploy.io/task"
_SECRETS, _OPTIONS = "/run/model-deploy", "store.json"
_GIB = 1 << 30


@dataclass(frozen=True)
class Pod:
    """What a step's pod is made of.

    Args:
        image: a worker image.
        namespace: where it runs.
        cpus: requested; numeric libraries start as many threads.
        memory_bytes: requested, and the limit; None: no limit.
        scratch_bytes: the limit of its temporary folder.
        gpus: whole devices.
        gpu_resource: the device plugin's name for them.
        node_selector: labels that the node must have.
        tolerations: of taints, as the API writes them.
        service_account: None: the namespace's default.
        image_pull_secrets: names of Secrets in the namespace.
        startup_timeout_s: for a node to be found and, once more, for the image to be pulled.
        deferrable: wait in the triggerer.
        environment: variables. No secrets: a cluster shows them to whoever may look at a pod.
    """

    image: str
    namespace: str
    cpus: float | None = None
    memory_bytes: int | None = None
    scratch_bytes: int = 16 * _GIB
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    startup_timeout_s: float = 600.0
    deferrable: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def pod_object(pod: Pod, request: StepRequest, name: str, *, task: str, has_secret: bool) -> dict[str, Any]:
    """Return the pod.

    Args:
        pod: what it is made of.
        request: what it runs; it holds no secret, so it stands in the arguments.
        name: of the pod, and of its Secret.
        task: what the pods of all attempts at a task are found by.
        has_secret: it reads how the store is opened from a Secret.
    """
    arguments = ["run", request.step, "--json", _literal(json.dumps(request.to_json(), sort_keys=True))]
    if has_secret:
        arguments += ["--store-options", f"{_SECRETS}/{_OPTIONS}"]
    volumes = _volumes(pod) | ({"store": _secret_volume(name)} if has_secret else {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": pod.namespace, "labels": labels(request.step, task)},
        "spec": {
            "restartPolicy": "Never",
            # The step has nothing to tidy up, and the first process of a container takes no default signals.
            "terminationGracePeriodSeconds": 2,
            "automountServiceAccountToken": False,
            "securityContext": pod_security(),
            "nodeSelector": dict(pod.node_selector),
            "tolerations": [dict(one) for one in pod.tolerations],
            "imagePullSecrets": [{"name": one} for one in pod.image_pull_secrets],
            "volumes": [{"name": volume, **content} for volume, (_, content) in volumes.items()],
            "containers": [_container(pod, arguments, {name: path for name, (path, _) in volumes.items()})],
            **({"serviceAccountName": pod.service_account} if pod.service_account else {}),
        },
    }


def secret_object(pod: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Secret of a created pod, which goes with it, whoever removes it.

    Args:
        pod: as the server answered.
        options: how the store is opened.
    """
    meta = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    own = {name: value for name, value in meta["labels"].items() if name in (STEP, TASK)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": meta["name"], "labels": own, "ownerReferences": [owner]},
        "immutable": True,
        "type": "Opaque",
        "data": {_OPTIONS: base64.b64encode(json.dumps(dict(options)).encode()).decode()},
    }


def labels(step: str, task: str) -> dict[str, str]:
    """Return the labels of a step's pod: none that a Service selects by."""
    return {"app.kubernetes.io/managed-by": "model-deploy", STEP: step, TASK: task}


def _container(pod: Pod, arguments: list[str], mounts: Mapping[str, str]) -> dict[str, Any]:
    variables = step_environment(pod.cpus, pod.environment)
    return {
        "name": CONTAINER,
        "image": pod.image,
        "args": arguments,
        "env": [{"name": name, "value": _literal(value)} for name, value in variables.items()],
        "resources": _resources(pod),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": name, "mountPath": path, **({"readOnly": True} if path == _SECRETS else {})}
            for name, path in mounts.items()
        ],
    }


def _resources(pod: Pod) -> dict[str, dict[str, str]]:
    requests = {"ephemeral-storage": str(min(pod.scratch_bytes, _GIB))}
    limits: dict[str, str] = {}
    if pod.cpus:
        requests["cpu"] = f"{math.ceil(pod.cpus * 1000)}m"
    if pod.memory_bytes:
        requests["memory"] = limits["memory"] = str(pod.memory_bytes)
    if pod.gpus:
        requests[pod.gpu_resource] = limits[pod.gpu_resource] = str(pod.gpus)
    return {"requests": requests, "limits": limits}


def _volumes(pod: Pod) -> dict[str, tuple[str, dict[str, Any]]]:
    # Its processes share tensors there; the runtime's own 64 MB end a data loader by SIGBUS.
    shared = pod.memory_bytes // 2 if pod.memory_bytes else _GIB
    return {
        "tmp": ("/tmp", {"emptyDir": {"sizeLimit": str(pod.scratch_bytes)}}),  # noqa: S108 - the pod's own
        "shm": ("/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": str(shared)}}),  # noqa: S108
    }


def _secret_volume(name: str) -> tuple[str, dict[str, Any]]:
    return _SECRETS, {"secret": {"secretName": name, "defaultMode": 0o440}}


def _literal(text: str) -> str:
    """Keep a cluster from reading "$(NAME)" in an argument or a variable as a reference to another variable."""
    return text.replace("$", "$$")
