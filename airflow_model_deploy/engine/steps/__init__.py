"""The steps of the flow: each a spec and a function, run anywhere by request and result."""

from __future__ import annotations

from airflow_model_deploy.engine.steps.base import StepRequest, StepResult
from airflow_model_deploy.engine.steps.execute import publish_code, run_request
from airflow_model_deploy.engine.steps.registry import STEP_NAMES, get_step
from airflow_model_deploy.engine.steps.requirements import requirements
from airflow_model_deploy.engine.steps.spec import parse_spec, spec_schema

__all__ = [
    "STEP_NAMES",
    "StepRequest",
    "StepResult",
    "get_step",
    "parse_spec",
    "publish_code",
    "requirements",
    "run_request",
    "spec_schema",
]
