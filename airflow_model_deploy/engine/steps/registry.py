"""The steps by name, in the order of the flow. A step's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.steps.base import Step

_ROOM = "airflow_model_deploy.engine.steps"

STEP_NAMES = (
    "train",
    "ingest",
    "export",
    "autocompress",
    "prune",
    "distill",
    "quantize",
    "optimize",
    "build",
    "test",
    "prepare",
    "package",
    "deploy",
    "rollback",
    "monitor",
)


def get_step(name: str) -> Step:
    """Return a step by its name."""
    if name not in STEP_NAMES:
        raise InputError(
            "there is no such step",
            found=name,
            wanted="one of " + ", ".join(STEP_NAMES),
            remedy="`model-deploy steps` lists them.",
        )
    step = import_module(f"{_ROOM}.{name}").STEP
    if not isinstance(step, Step):
        raise TypeError(f"{_ROOM}.{name}.STEP is no Step")
    return step
