"""The Deployment of one revision: named by what its pods are, and never changed afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import digest_of
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import (
    IMAGE,
    labels,
    only,
    revision_name,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.metadata import metadata
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.pods import pod_template
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.probes import progress_seconds
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.target import PENDING

if TYPE_CHECKING:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.objects.target import Target

_HEX = 12


def revision_of_template(target: Target) -> str:
    """Return 12 hex digits of the sha256 of the pod template; "pending" while there is no image.

    The template holds the image's digest and every setting of a pod. How many pods there are, and how they are
    reached, is no part of it.
    """
    if target.pending:
        return PENDING
    return digest_of(pod_template(target, None)).removeprefix("sha256:")[:_HEX]


def deployment(target: Target) -> dict[str, Any]:
    """Return a revision's Deployment.

    It says nothing of replicas: it comes up with one, the blessing of the revision, and whoever scales it later
    is not undone when it is applied again.
    """
    revision = revision_of_template(target)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(
            revision_name(target.name, revision),
            target.namespace,
            labels(target.name, revision),
            {IMAGE: target.image},
        ),
        "spec": {
            "progressDeadlineSeconds": progress_seconds(target.workload),
            "selector": {"matchLabels": only(target.name, revision)},
            "template": pod_template(target, revision),
        },
    }
