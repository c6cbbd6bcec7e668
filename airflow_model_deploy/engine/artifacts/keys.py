"""The key of a pure step: equal keys mean equal work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts.canonical import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def step_key(
    *,
    step: str,
    version: int,
    spec: Mapping[str, Any],
    inputs: Mapping[str, str],
    data: Mapping[str, str],
    code: str | None,
    libraries: Mapping[str, str],
) -> str:
    """Digest everything that decides a pure step's outcome.

    Args:
        step: the step's name.
        version: raised when the step's own code changes its outcome.
        spec: the validated spec as JSON.
        inputs: digest of each input artifact by role.
        data: fingerprint of each data source by role.
        code: digest of the user code that the spec refers to.
        libraries: versions of the libraries that the step declares.
    """
    return digest_of(
        {
            "step": step,
            "version": version,
            "spec": dict(spec),
            "inputs": dict(inputs),
            "data": dict(data),
            "code": code,
            "libraries": dict(libraries),
        }
    )
