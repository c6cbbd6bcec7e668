"""Objects for tests on a real cluster: small, and quick to go."""

from __future__ import annotations

import os
from typing import Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import CONTAINER, PORT

REGISTRY = os.environ.get("TESTBED_REGISTRY", "localhost:5000")
PYTHON = f"{REGISTRY}/python:3.11-slim"
SLEEP = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit()); time.sleep(600)"


def deployment(
    name: str,
    script: str = SLEEP,
    *,
    image: str = PYTHON,
    memory: str = "64Mi",
    pod: dict[str, Any] | None = None,
    container: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A Deployment of one pod with the label app=name, that runs a Python script; without `replicas`."""
    server = {
        "name": CONTAINER,
        "image": image,
        "command": ["python3", "-c", script],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": memory}},
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [server | (container or {})],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec | (pod or {})},
        },
    }


def service(name: str, selector: dict[str, str], port: int = 80) -> dict[str, Any]:
    """A Service in front of pods with these labels."""
    ports = [{"port": port, "targetPort": "http", "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"selector": selector, "ports": ports},
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
