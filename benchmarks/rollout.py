"""What a rollout costs over `kubectl apply` and `kubectl rollout status`, and how many calls to the API it takes.

Both replace the pods of the same Deployment, one by one, and wait until all are ready; ours also asks them the golden
requests, moves the traffic by a written decision, and checks it. They take turns in a namespace of a real cluster
(KUBECONFIG) that pulls from a registry (`--registry`, TESTBED_REGISTRY); pods have to be reachable from here. Wall
time is what one waits for; only the ratio says something. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import _rollout_peers as peers
from benchmarks._claims import Found
from benchmarks._rollout_release import package
from benchmarks._steps import say

MOST_OVERHEAD, MOST_CALLS = 1.25, 60


def measure(
    folder: Path, registry: str, base: str, turns: int, replicas: int
) -> tuple[Found, dict[str, Any]]:
    """Deploy first, then let both replace their pods in turns; every turn is another revision."""
    from airflow_model_deploy.engine.deployment import kubernetes

    found, times = Found(), {"kubectl": list[float](), "ours": list[float]()}
    packaged = package(folder, registry, base)
    namespace = f"benchmark-{secrets.token_hex(3)}"
    create = ["kubectl", "create", "namespace", namespace]
    subprocess.run(create, check=True, stdout=sys.stderr)
    try:
        with kubernetes.Cluster(kubernetes.Connection(), namespace) as cluster:
            say("rollout: first deployments")
            peers.kubectl(namespace, packaged, 0, replicas, folder)
            peers.ours(cluster, packaged, 0, replicas)
            for turn in range(1, turns + 1):
                times["kubectl"].append(peers.kubectl(namespace, packaged, turn, replicas, folder))
                times["ours"].append(peers.ours(cluster, packaged, turn, replicas))
                say(f"rollout {turn}: kubectl {times['kubectl'][-1]:.1f} s, ours {times['ours'][-1]:.1f} s")
            calls = peers.count_calls(cluster, packaged, turns + 1, replicas)
            server = cluster.version()
    finally:
        delete = ["kubectl", "delete", "namespace", namespace, "--wait=false"]
        subprocess.run(delete, check=False, stdout=sys.stderr)
    found.rows.extend(
        {"who": who, "median_wall_s": round(median(one), 2), "wall_s": [round(value, 2) for value in one]}
        for who, one in times.items()
    )
    found.rows.append({"who": "ours", "calls": dict(sorted(calls.items()))})
    found.claim("overhead_vs_kubectl", median(times["ours"]) / median(times["kubectl"]), most=MOST_OVERHEAD)
    found.claim("api_calls", calls.total(), most=MOST_CALLS)
    return found, {"kubernetes": server, "replicas": replicas, "turns": turns}


def main() -> int:
    """Run it, print, and return 1 if a claim doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--registry", default=os.environ.get("TESTBED_REGISTRY", ""), help="HOST:PORT to push to"
    )
    parser.add_argument("--base", default="python:3.11-slim", help="image with Python in that registry")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=3)
    given = parser.parse_args()
    if not os.environ.get("KUBECONFIG") or not given.registry:
        parser.error("needs KUBECONFIG and --registry (or TESTBED_REGISTRY)")
    with tempfile.TemporaryDirectory(prefix="benchmark-rollout-") as folder:
        found, about = measure(Path(folder), given.registry, given.base, given.turns, given.replicas)
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), **about}
    print(json.dumps({"machine": machine, "rows": found.rows, "claims": found.claims}))
    return 0 if all(claim["holds"] for claim in found.claims) else 1


if __name__ == "__main__":
    sys.exit(main())
