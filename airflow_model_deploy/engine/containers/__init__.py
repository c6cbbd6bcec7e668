"""Containers on a Docker engine: reach it, get an image there, run it confined, talk to it, read its log."""

from __future__ import annotations

from airflow_model_deploy.engine.containers.bridge import tunnel
from airflow_model_deploy.engine.containers.causes import says_absent, says_no_room
from airflow_model_deploy.engine.containers.confinement import Limits, host_config, require_limits
from airflow_model_deploy.engine.containers.credentials import (
    Credentials,
    find_credentials,
    named_registry,
    split_registry,
)
from airflow_model_deploy.engine.containers.engine import (
    Engine,
    answers,
    connect,
    engine_architecture,
    engine_errors,
)
from airflow_model_deploy.engine.containers.exec_stream import (
    ContainerStream,
    ExecResult,
    ExecStream,
    run_inside,
)
from airflow_model_deploy.engine.containers.log import tail
from airflow_model_deploy.engine.containers.pull import (
    auth_config,
    ensure_image,
    find_image,
    registry_errors,
)
from airflow_model_deploy.engine.containers.restricted import container_security, pod_security
from airflow_model_deploy.engine.containers.streams import StreamError, follow

__all__ = [
    "ContainerStream",
    "Credentials",
    "Engine",
    "ExecResult",
    "ExecStream",
    "Limits",
    "StreamError",
    "answers",
    "auth_config",
    "connect",
    "container_security",
    "engine_architecture",
    "engine_errors",
    "ensure_image",
    "find_credentials",
    "find_image",
    "follow",
    "host_config",
    "named_registry",
    "pod_security",
    "registry_errors",
    "require_limits",
    "run_inside",
    "says_absent",
    "says_no_room",
    "split_registry",
    "tail",
    "tunnel",
]
