"""The engine and the registries that a step may reach, from what its runner handed over privately."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers import Credentials, Engine
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from airflow_model_deploy.engine.steps.base import StepContext


def engine_of(context: StepContext) -> Engine:
    """Return the Docker engine that was named; by default the one of DOCKER_HOST, or this machine's."""
    try:
        return Engine(**(context.connections.get("engine") or {}))
    except TypeError as error:
        raise InputError(
            "the connection to the Docker engine", found=str(error), wanted="the fields of `Engine`"
        ) from error


def insecure_of(context: StepContext) -> tuple[str, ...]:
    """Return the registries that speak plain HTTP, by their connections' own word."""
    return tuple(context.connections.get("insecure") or ())


def credentials_of(context: StepContext) -> tuple[Credentials, ...]:
    """Return the credentials of registries that were handed over."""
    try:
        return tuple(Credentials(**one) for one in context.connections.get("registries") or ())
    except TypeError:
        # Not chained: the message of a TypeError could tell what was given.
        raise InputError(
            "the credentials of a registry", wanted='"registry", "username" and "password"'
        ) from None
