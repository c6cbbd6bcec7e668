"""What a served model does, and whether that is what was promised: observation, then verdict."""

from __future__ import annotations

from airflow_model_deploy.engine.monitoring.canary import CanaryVerdict, judge_canary
from airflow_model_deploy.engine.monitoring.comparison import CanaryStatus
from airflow_model_deploy.engine.monitoring.counts import Counts
from airflow_model_deploy.engine.monitoring.fleet import nothing_seen, observe_fleet
from airflow_model_deploy.engine.monitoring.metrics_text import Delta, Scrape, delta, parse, share_over
from airflow_model_deploy.engine.monitoring.observation import Observation
from airflow_model_deploy.engine.monitoring.prometheus import PrometheusSource, PrometheusWindow
from airflow_model_deploy.engine.monitoring.proportions import (
    difference_probability,
    excess_probability,
    noticeable_share,
)
from airflow_model_deploy.engine.monitoring.track import Track
from airflow_model_deploy.engine.monitoring.verdict import Status, Verdict, judge
from airflow_model_deploy.engine.monitoring.watch import observe
from airflow_model_deploy.engine.monitoring.window import Window

__all__ = [
    "CanaryStatus",
    "CanaryVerdict",
    "Counts",
    "Delta",
    "Observation",
    "PrometheusSource",
    "PrometheusWindow",
    "Scrape",
    "Status",
    "Track",
    "Verdict",
    "Window",
    "delta",
    "difference_probability",
    "excess_probability",
    "judge",
    "judge_canary",
    "nothing_seen",
    "noticeable_share",
    "observe",
    "observe_fleet",
    "parse",
    "share_over",
]
