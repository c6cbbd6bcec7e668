"""Where a step runs."""

from __future__ import annotations

from airflow_model_deploy.runners.base import Runner
from airflow_model_deploy.runners.container import Container
from airflow_model_deploy.runners.docker import DockerRunner
from airflow_model_deploy.runners.kubernetes import KubernetesRunner
from airflow_model_deploy.runners.pod import Pod
from airflow_model_deploy.runners.worker import WorkerRunner

__all__ = ["Container", "DockerRunner", "KubernetesRunner", "Pod", "Runner", "WorkerRunner"]
