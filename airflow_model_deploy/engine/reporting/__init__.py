"""One run told on one page: stages, plan, gates, what is served, and the verdict."""

from __future__ import annotations

from airflow_model_deploy.engine.reporting.page import write_html
from airflow_model_deploy.engine.reporting.report import build_report

__all__ = ["build_report", "write_html"]
