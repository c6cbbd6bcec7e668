"""Puts a release into service: one room a target, `host` so far.

A target knows processes and traffic. Whether an answer is right is decided by the `check` that its caller
passes.
"""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.check import Check, CheckResult
from airflow_model_deploy.engine.deployment.targets import host

__all__ = ["Check", "CheckResult", "host"]
