"""A release in a Kubernetes cluster: immutable revisions behind one Service, which carries the traffic decision.

Needs Kubernetes 1.30 or newer for all of it; what an older one doesn't serve is left out, and said.
"""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.targets.kubernetes.actions import (
    Turn,
    deploy,
    give_back,
    rollback,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.address import known_url
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    Cluster,
    Connection,
    Reach,
    reach_of,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision, Outcome, decision_on
from airflow_model_deploy.engine.deployment.targets.kubernetes.interruption import RolloutInterruptedError
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects import (
    DRIVER,
    Target,
    file_name,
    live_objects,
    pending_image,
    revision_of_template,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import (
    Delivered,
    Kept,
    deliver,
    delivered,
    read_kept,
    target_of,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.revisions import ready_pods
from airflow_model_deploy.engine.deployment.targets.kubernetes.rollout import Means
from airflow_model_deploy.engine.deployment.targets.kubernetes.status import (
    KubernetesStatus,
    RevisionStatus,
    restarts,
    status,
    stop,
)

__all__ = [
    "DRIVER",
    "Cluster",
    "Connection",
    "Decision",
    "Delivered",
    "Kept",
    "KubernetesStatus",
    "Means",
    "Outcome",
    "Reach",
    "RevisionStatus",
    "RolloutInterruptedError",
    "Target",
    "Turn",
    "decision_on",
    "deliver",
    "delivered",
    "deploy",
    "file_name",
    "give_back",
    "known_url",
    "live_objects",
    "pending_image",
    "reach_of",
    "read_kept",
    "ready_pods",
    "restarts",
    "revision_of_template",
    "rollback",
    "status",
    "stop",
    "target_of",
]
