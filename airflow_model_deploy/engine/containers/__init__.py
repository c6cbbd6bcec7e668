"""Containers on a Docker engine: reach it, get an image there, run it confined, talk to it, take files out."""

from __future__ import annotations

from airflow_model_deploy.engine.containers.bridge import tunnel
from airflow_model_deploy.engine.containers.confinement import Limits, host_config
from airflow_model_deploy.engine.containers.credentials import Credentials, find_credentials, split_registry
from airflow_model_deploy.engine.containers.engine import Engine, answers, connect, engine_errors
from airflow_model_deploy.engine.containers.exec_stream import ExecResult, ExecStream, run_inside
from airflow_model_deploy.engine.containers.files import fetch_folder, tail
from airflow_model_deploy.engine.containers.pull import (
    auth_config,
    ensure_image,
    find_image,
    registry_errors,
)
from airflow_model_deploy.engine.containers.streams import StreamError, follow

__all__ = [
    "Credentials",
    "Engine",
    "ExecResult",
    "ExecStream",
    "Limits",
    "StreamError",
    "answers",
    "auth_config",
    "connect",
    "engine_errors",
    "ensure_image",
    "fetch_folder",
    "find_credentials",
    "find_image",
    "follow",
    "host_config",
    "registry_errors",
    "run_inside",
    "split_registry",
    "tail",
    "tunnel",
]
