"""One way to ask any running model server, and to compare what it answers with golden requests."""

from __future__ import annotations

from airflow_model_deploy.engine.probing.checks import ask, check_server
from airflow_model_deploy.engine.probing.client import Client, ProbeError
from airflow_model_deploy.engine.probing.comparison import Comparison, compare, compare_both, matches
from airflow_model_deploy.engine.probing.golden import (
    GoldenRequest,
    GoldenSet,
    Kind,
    Tolerance,
)
from airflow_model_deploy.engine.probing.golden_file import load_golden, make_golden, write_golden
from airflow_model_deploy.engine.probing.process import ServerProcess, serve
from airflow_model_deploy.engine.probing.protocol import datatype, from_tensor, numpy_name, to_tensor
from airflow_model_deploy.engine.probing.tolerance import derive_tolerance, tight_tolerance

__all__ = [
    "Client",
    "Comparison",
    "GoldenRequest",
    "GoldenSet",
    "Kind",
    "ProbeError",
    "ServerProcess",
    "Tolerance",
    "ask",
    "check_server",
    "compare",
    "compare_both",
    "datatype",
    "derive_tolerance",
    "from_tensor",
    "load_golden",
    "make_golden",
    "matches",
    "numpy_name",
    "serve",
    "tight_tolerance",
    "to_tensor",
    "write_golden",
]
