"""A cluster as the steps and the command line reach it, from what a runner handed over privately."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.steps.service import golden_check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_model_deploy.engine.steps.fields import ReachMode

logger = logging.getLogger(__name__)


def cluster_of(connections: Mapping[str, Any], namespace: str | None) -> kubernetes.Cluster:
    """Return one namespace of the cluster that was named; by default the one around this pod, or of KUBECONFIG.

    Raises:
        InputError: no namespace was named, or the connection has other fields than `Connection`.
    """
    if not namespace:
        raise InputError("no namespace is named for the service", found="namespace: none", wanted="its name")
    try:
        connection = kubernetes.Connection(**(connections.get("cluster") or {}))
    except TypeError as error:
        # Not chained: the message could tell what was given.
        raise InputError(
            "the connection to the cluster",
            found=str(error).rpartition("'")[0],
            wanted="the fields of `Connection`",
        ) from None
    return kubernetes.Cluster(connection, namespace, log=logger.warning)


def means_of(
    cluster: kubernetes.Cluster, name: str, *, reach: ReachMode, attempt: str | None
) -> kubernetes.Means:
    """Return what a rollout in a cluster works with."""
    return kubernetes.Means(
        cluster=cluster,
        name=name,
        reach=kubernetes.reach_of(cluster, reach),
        check=golden_check,
        log=logger.info,
        attempt=attempt,
    )
