"""Brings a release from its store into a cluster, where the driver reads it; the model itself is in the image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import Reference, Store
from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import Release, require_blessed
from airflow_model_deploy.engine.steps.clusters import cluster_of
from airflow_model_deploy.engine.steps.layout import BUNDLE, RELEASE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INDEX = f"{BUNDLE}/servable/servable.json"


def deliver_release(
    store: str,
    store_options: Mapping[str, Any] | None,
    release: Mapping[str, Any],
    connection: Mapping[str, Any],
    namespace: str,
) -> dict[str, str]:
    """Deliver a packaged release; returns its service's "name", its "revision", and the ConfigMap "release".

    Args:
        store: URL of the artifact store.
        store_options: its credentials.
        release: reference of the release.
        connection: fields of the cluster's `Connection`.
        namespace: where it is to run.
    """
    opened, reference = Store(store, store_options), Reference.from_json(dict(release))
    with cluster_of({"cluster": dict(connection)}, namespace) as cluster:
        name, found = delivered_from(cluster, lambda path: opened.read_file(reference, path))
    return {"name": name, "revision": found.revision, "release": found.map_name}


def delivered_from(
    cluster: kubernetes.Cluster, read: Callable[[str], bytes]
) -> tuple[str, kubernetes.Delivered]:
    """Deliver the release whose files `read` gives; returns the service's name, and what was delivered.

    Raises:
        InputError: it is for another target, or has no golden requests.
        RolloutError: its blessing is of another image. One without a blessing gets it from its first pod.
    """
    content = read(RELEASE)
    release = Release.from_json(json.loads(content))
    if release.plan.target != "kubernetes":
        raise InputError(
            "the release is for another target",
            found="kubernetes",
            wanted=release.plan.target,
            remedy="Give prepare, package and deploy the same target.",
        )
    if release.blessing is not None:
        require_blessed(release, (release.image or "").rpartition("@")[2])
    index = read(INDEX)
    golden = json.loads(index).get("golden")
    if not golden:
        raise InputError(
            f"the release of {release.plan.name} has no golden requests",
            wanted="golden.json",
            remedy="Build it anew.",
        )
    requests = read(f"{BUNDLE}/servable/{golden}")
    return release.plan.name, kubernetes.deliver(cluster, content, index, requests)
