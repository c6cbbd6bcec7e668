"""How good a model is, how fast, how large, how far from the original, and whether that is enough."""

from __future__ import annotations

from airflow_model_deploy.engine.evaluation.comparison import OutputError, output_error
from airflow_model_deploy.engine.evaluation.gates import Gate, GateKind, GateResult, check_gates
from airflow_model_deploy.engine.evaluation.measurement import (
    Latency,
    PeakMemory,
    SpeedComparison,
    compare_speed,
    latency,
    peak_memory,
    throughput,
)
from airflow_model_deploy.engine.evaluation.metrics import Metric, accuracy, mae, resolve_metric, rmse

__all__ = [
    "Gate",
    "GateKind",
    "GateResult",
    "Latency",
    "Metric",
    "OutputError",
    "PeakMemory",
    "SpeedComparison",
    "accuracy",
    "check_gates",
    "compare_speed",
    "latency",
    "mae",
    "output_error",
    "peak_memory",
    "resolve_metric",
    "rmse",
    "throughput",
]
