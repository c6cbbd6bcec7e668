"""How good a model is, how fast, how large, how far from the original, and whether that is enough."""

from __future__ import annotations

from airflow_model_deploy.engine.evaluation.comparison import OutputError, output_error
from airflow_model_deploy.engine.evaluation.gates import Gate, GateKind, GateResult, check_gates
from airflow_model_deploy.engine.evaluation.intervals import (
    drop_interval,
    paired_difference,
    quality_interval,
    wilson,
)
from airflow_model_deploy.engine.evaluation.measurement import (
    Latency,
    PeakMemory,
    SpeedComparison,
    compare_speed,
    compressed_size,
    latency,
    peak_memory,
    throughput,
)
from airflow_model_deploy.engine.evaluation.metrics import (
    METRICS,
    Metric,
    drop_of,
    evaluate,
    in_points,
    resolve_metric,
    wanted_by,
)
from airflow_model_deploy.engine.evaluation.samplewise import Scores

__all__ = [
    "METRICS",
    "Gate",
    "GateKind",
    "GateResult",
    "Latency",
    "Metric",
    "OutputError",
    "PeakMemory",
    "Scores",
    "SpeedComparison",
    "check_gates",
    "compare_speed",
    "compressed_size",
    "drop_interval",
    "drop_of",
    "evaluate",
    "in_points",
    "latency",
    "output_error",
    "paired_difference",
    "peak_memory",
    "quality_interval",
    "resolve_metric",
    "throughput",
    "wanted_by",
    "wilson",
]
