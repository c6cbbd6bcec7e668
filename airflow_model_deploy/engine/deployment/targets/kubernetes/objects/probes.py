"""How long a server may take to start, and how it is asked whether it lives; from the model's size, not by habit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_model_deploy.engine.packaging import Workload

# Seconds for what has nothing to do with the model: a container on a busy node, the interpreter and its packages.
_FIXED_S = 60.0
# A node's cores may be fewer, slower and shared with other pods that start at the same moment.
_LOAD_FACTOR = 4.0
# The slowest disk worth planning for, read twice (once to verify, once to load): 25 MB of model a second.
_DISK_BYTES_PER_S = 25e6
_ROUNDED_S = 10
_PROBES_WANTED = 100
_SLOWEST_PERIOD_S = 10
# What a cluster gives to a rollout that makes no progress, its own default: a node may have to be added.
_PROGRESS_S = 600.0
# A cold pull, blob and then unpacking, of large images on a cloud's ordinary disks.
_PULL_BYTES_PER_S = 30e6
_PULL_SAFETY = 2.0
_TIMEOUT_S = 5


def startup_seconds(workload: Workload) -> float:
    """Return how long a container may take from its start until its model answers.

        60 + 4 * load_s + model_bytes / 25 MB/s, rounded up to 10 s

    A fixed bound is wrong at one end or the other: servers with a fixed one of 5 minutes were killed, again and
    again, while they still read their weights. Too long a bound costs little: a server that can't start exits
    and is seen at once; only one that hangs is waited for. Here 30 MB get 70 s, 140 GB get 95 minutes.
    """
    seconds = (
        _FIXED_S + _LOAD_FACTOR * (workload.load_s or 0.0) + (workload.model_bytes or 0) / _DISK_BYTES_PER_S
    )
    return float(math.ceil(seconds / _ROUNDED_S) * _ROUNDED_S)


def progress_seconds(workload: Workload) -> int:
    """Return after how long without progress the cluster calls a revision's Deployment stuck.

    600 s, as the cluster gives by itself; the pull at 30 MB/s, doubled; then the start. A pull of 140 GB was
    measured at 4,586 s elsewhere; this gives 9,333 s for it.
    """
    pull = (workload.model_bytes or 0) / _PULL_BYTES_PER_S * _PULL_SAFETY
    return math.ceil(_PROGRESS_S + pull + startup_seconds(workload))


def probes(workload: Workload) -> dict[str, Any]:
    """Return a container's three probes.

    Until the startup probe succeeds, the others wait. It asks every second where the start is short, at most
    every 10 s where it is long. Liveness is slow to judge: a server that is busy is not dead, and killing it
    would send its load to the others.
    """
    allowed = startup_seconds(workload)
    period = min(_SLOWEST_PERIOD_S, max(1, int(allowed / _PROBES_WANTED)))
    return {
        "startupProbe": _probe("ready", period, math.ceil(allowed / period)),
        "readinessProbe": _probe("ready", 5, 3),
        "livenessProbe": _probe("live", 10, 6),
    }


def _probe(question: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": f"/v2/health/{question}", "port": "http", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": _TIMEOUT_S,
        "failureThreshold": failures,
    }
