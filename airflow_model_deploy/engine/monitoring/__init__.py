"""What a served model does, and whether that is what was promised: observation, then verdict."""

from __future__ import annotations

from airflow_model_deploy.engine.monitoring.metrics_text import Delta, Scrape, delta, parse, share_over
from airflow_model_deploy.engine.monitoring.observation import Observation
from airflow_model_deploy.engine.monitoring.verdict import Status, Verdict, judge
from airflow_model_deploy.engine.monitoring.watch import observe

__all__ = [
    "Delta",
    "Observation",
    "Scrape",
    "Status",
    "Verdict",
    "delta",
    "judge",
    "observe",
    "parse",
    "share_over",
]
