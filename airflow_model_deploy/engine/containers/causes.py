"""Why a registry or an engine refused, told from its own words: no API has a type for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers.credentials import split_registry
from airflow_model_deploy.engine.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from airflow_model_deploy.engine.errors import ModelDeployError

_REFUSED = ("unauthorized", "authentication required", "no basic auth", "denied", "forbidden", "status: 401")
_INSECURE = ("http response to https client", "x509", "certificate")
_ABSENT = ("not found", "unknown", "no such image", "does not exist")


def registry_error(thing: str, reference: str, words: str) -> ModelDeployError:
    """The error for what an engine said while it pulled or pushed.

    Args:
        thing: what was attempted.
        reference: the image's, which names the registry.
        words: the engine's.

    Returns:
        InputError where the same call fails again (refused, not there, no TLS), else UnavailableError.
    """
    registry, said = split_registry(reference)[0], words.lower()
    if any(part in said for part in _REFUSED):
        return InputError(
            thing,
            found=words,
            remedy=f"Give credentials for {registry} that may do that with this repository",
        )
    if any(part in said for part in _INSECURE):
        return InputError(
            thing,
            found=words,
            remedy=f"Give {registry} a certificate that the engine trusts; without TLS an engine talks only to"
            " its own host's registry, or to one of its insecure-registries",
        )
    if any(part in said for part in _ABSENT):
        return InputError(
            thing, found=words, wanted=reference, remedy="Correct the name, the tag or the digest"
        )
    return UnavailableError(thing, found=words, remedy=f"Look whether {registry} answers, then run it again")
