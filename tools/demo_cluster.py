"""What the demo needs of a cluster: a namespace of its own, the driver's rights and image, a way to the Service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment import kubernetes as k8s
from airflow_model_deploy.engine.errors import ModelDeployError
from airflow_server import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

RIGHTS = REPOSITORY / "docs" / "cluster-roles" / "driver.yaml"
_OURS = {"app.kubernetes.io/managed-by": "model-deploy-demo"}
_GONE_WITHIN_S, _ACCOUNT_WITHIN_S = 180.0, 20.0


class MissingError(Exception):
    """Something that the demo needs isn't there; says what."""


def connected(namespace: str) -> k8s.Cluster:
    """Return the namespace of the cluster that KUBECONFIG, or ~/.kube/config, names; MissingError without one."""
    cluster = k8s.Cluster(k8s.Connection(), namespace, patience_s=5.0, timeout_s=10.0)
    try:
        cluster.version()
    except ModelDeployError as error:
        raise MissingError(
            f"no Kubernetes cluster answers ({error}). Set KUBECONFIG to the file of one whose nodes pull from your"
            " registry."
        ) from error
    return cluster


def driver_image(registry: str) -> str:
    """Build and push the driver's image where it isn't there yet; returns it by digest."""
    from airflow_model_deploy.engine.packaging.images import default_base

    base = os.environ.get("AIRFLOW__MODEL_DEPLOY__BASE_IMAGE") or default_base()
    program = [sys.executable, "-m", "airflow_model_deploy.engine.cli", "image", "driver"]
    done = subprocess.run(
        [*program, "--base", base, "--destination", f"{registry}/model-deploy-driver"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"the driver's image can't be built:\n{done.stderr[-2000:]}")
    return str(json.loads(done.stdout)["reference"])


def make_namespace(name: str) -> None:
    """Make the namespace, and give the driver its rights there."""
    from kubernetes import client

    core = client.CoreV1Api(_client())
    core.create_namespace({"metadata": {"name": name, "labels": _OURS}})
    _apply_rights(name)
    until = time.monotonic() + _ACCOUNT_WITHIN_S
    while not _there(lambda: core.read_namespaced_service_account("default", name)):
        if time.monotonic() > until:
            raise MissingError(f"namespace {name} gets no service account: no pod can be made")
        time.sleep(0.2)


def remove_namespace(name: str, *, wait: bool = True) -> None:
    """Delete the demo's namespace with all that is in it; MissingError where it is somebody else's."""
    from kubernetes import client

    core = client.CoreV1Api(_client())
    found = _there(lambda: core.read_namespace(name))
    if found is None:
        return
    if not _OURS.items() <= (found.metadata.labels or {}).items():
        raise MissingError(f"the namespace {name} is not the demo's. Name another: NAMESPACE=...")
    core.delete_namespace(name)
    until = time.monotonic() + _GONE_WITHIN_S
    while wait and _there(lambda: core.read_namespace(name)):
        if time.monotonic() > until:
            raise MissingError(f"the namespace {name} of an earlier demo doesn't go away")
        time.sleep(0.5)


@contextmanager
def reached(cluster: k8s.Cluster, service: str) -> Iterator[str]:
    """Give a URL by which this machine reaches the Service: its own address, else through the API server."""
    found = cluster.get("Service", service)
    if found is None:
        raise MissingError(f"there is no Service {service}")
    with k8s.reach_of(cluster, "direct").public(found) as url:
        direct = _answers(url)
        if direct:
            yield url
    if not direct:
        with k8s.reach_of(cluster, "proxy").public(found) as url:
            yield url


def _answers(url: str) -> bool:
    import httpx

    try:
        return "extensions" in httpx.get(f"{url}/v2", timeout=2.0, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return False


def _apply_rights(namespace: str) -> None:
    import yaml  # type: ignore[import-untyped]
    from kubernetes import utils

    for one in yaml.safe_load_all(RIGHTS.read_text(encoding="utf-8")):
        one["metadata"]["namespace"] = namespace
        for subject in one.get("subjects") or ():
            subject["namespace"] = namespace
        utils.create_from_dict(_client(), one, namespace=namespace)


def _client() -> Any:
    from kubernetes import client, config

    config.load_config()
    return client.ApiClient()


def _there(read: Any) -> Any:
    from kubernetes.client import ApiException

    try:
        return read()
    except ApiException as error:
        if error.status == 404:
            return None
        raise
