"""Puts a release into service: one room a target: `host`, `docker` and `kubernetes`.

A target knows processes and traffic. Whether an answer is right is decided by the `check` that its caller
passes.
"""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.blue_green import Deployment
from airflow_model_deploy.engine.deployment.check import Check, CheckResult
from airflow_model_deploy.engine.deployment.targets import docker, host, kubernetes

__all__ = ["Check", "CheckResult", "Deployment", "docker", "host", "kubernetes"]
