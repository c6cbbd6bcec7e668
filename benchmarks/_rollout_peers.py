"""One replacement of a service's pods, by kubectl and by us, each in a process of its own; and ours in API calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from benchmarks._rollout_release import release, release_bytes
from benchmarks._serving_model import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_model_deploy.engine.deployment import kubernetes
    from benchmarks._rollout_release import Packaged

_PEER = "peer"


def kubectl(namespace: str, packaged: Packaged, number: int, replicas: int, folder: Path) -> float:
    """Apply the very Deployment that we would make, and wait for it as a script would; returns the seconds."""
    from airflow_model_deploy.engine.deployment import kubernetes

    target = kubernetes.target_of(release(packaged, number, replicas), namespace)
    wanted = next(one for one in kubernetes.live_objects(target) if one["kind"] == "Deployment")
    selector = {"app": _PEER}
    wanted["metadata"] = {"name": _PEER, "namespace": namespace}
    wanted["spec"]["replicas"] = replicas
    wanted["spec"]["selector"] = {"matchLabels": selector}
    wanted["spec"]["template"]["metadata"]["labels"] = selector
    wanted["spec"]["template"]["spec"]["serviceAccountName"] = "default"  # what a namespace has by itself
    wanted["spec"]["strategy"] = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    file = folder / f"peer-{number}.json"
    file.write_text(json.dumps(wanted))
    began = time.monotonic()
    _run(["kubectl", "apply", "-f", str(file)])
    _run(["kubectl", "-n", namespace, "rollout", "status", f"deployment/{_PEER}", "--timeout=120s"])
    return time.monotonic() - began


def ours(cluster: kubernetes.Cluster, packaged: Packaged, number: int, replicas: int) -> float:
    """Roll the same out by the driver's own command; returns the seconds, its start included."""
    request = {
        "schema_version": 1,
        "step": "deploy",
        "spec": {
            "target": "kubernetes",
            "namespace": cluster.namespace,
            "name": NAME,
            "delivered": deliver(cluster, packaged, number, replicas).map_name,
            "reach": "direct",
        },
        "store": f"file://{packaged.servable.parent}/store",
    }
    command = [sys.executable, "-m", "airflow_model_deploy.engine.cli", "run", "deploy", "--json"]
    began = time.monotonic()
    _run([*command, json.dumps(request)])
    return time.monotonic() - began


def deliver(
    cluster: kubernetes.Cluster, packaged: Packaged, number: int, replicas: int
) -> kubernetes.Delivered:
    """Bring a release into the cluster, as the one who starts the driver does."""
    from airflow_model_deploy.engine.deployment import kubernetes

    read = packaged.servable.joinpath
    return kubernetes.deliver(
        cluster,
        release_bytes(release(packaged, number, replicas)),
        read("servable.json").read_bytes(),
        read("golden.json").read_bytes(),
    )


def count_calls(cluster: kubernetes.Cluster, packaged: Packaged, number: int, replicas: int) -> Counter[str]:
    """Return the calls to the API of one rollout in this process, by verb and kind of object."""
    from airflow_model_deploy.engine.deployment import kubernetes
    from airflow_model_deploy.engine.steps.service import golden_check

    calls: Counter[str] = Counter()

    class Counting(kubernetes.Cluster):
        def _send(self, method: str, path: str, **options: Any) -> Any:
            kind = path.partition(f"/namespaces/{self.namespace}/")[2].split("/")[0] or "discovery"
            watch = (options.get("query") or {}).get("watch")
            calls[f"{'WATCH' if watch else method} {kind}"] += 1
            return super()._send(method, path, **options)

    delivered = deliver(cluster, packaged, number, replicas)
    with Counting(cluster.connection, cluster.namespace) as counting:
        means = kubernetes.Means(
            counting, NAME, kubernetes.reach_of(counting, "direct"), golden_check, lambda _: None
        )
        kubernetes.deploy(means, delivered)
    return calls


def _run(command: list[str]) -> None:
    # Nothing of what they print is measured; what they say when they fail is.
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed ({done.returncode}): {done.stderr[-2000:]}")
