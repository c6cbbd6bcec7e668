"""Namespaces of their own for tests, and services in them."""

from __future__ import annotations

import secrets
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, Connection

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def fresh_namespace() -> Iterator[str]:
    """A fresh namespace; deleted at the end, without waiting until it's gone."""
    name = f"model-deploy-test-{secrets.token_hex(4)}"
    with Cluster(Connection(), name) as cluster:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        cluster._send("POST", "/api/v1/namespaces", body=body)
        try:
            until = time.monotonic() + 10
            while cluster.get("ServiceAccount", "default") is None and time.monotonic() < until:
                time.sleep(0.05)  # without it no pod can be made
            yield name
        finally:
            cluster._send("DELETE", f"/api/v1/namespaces/{name}")


def kubectl(namespace: str, *arguments: str, given: str | None = None) -> str:
    """What another person does in the namespace."""
    done = subprocess.run(
        ["kubectl", "--namespace", namespace, *arguments],  # noqa: S607 - whichever is installed
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        input=given,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
