"""Why a registry or an engine refused, told from its own words: no API has a type for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers.credentials import split_registry
from airflow_model_deploy.engine.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from airflow_model_deploy.engine.errors import ModelDeployError

_NO_ROOM = ("no space left", "disk quota exceeded", "insufficient storage")
# Asked first: such an answer often ends in a word that means something else, as in "500 ...: unknown".
_PASSING = re.compile(
    r"toomanyrequests|too many requests|status( code)?:? (429|5\d\d)\b|unknown: unknown error"
    r"|\b(429|5\d\d) [a-z ]*(error|gateway|unavailable|timeout|time-out)"
)
_REFUSED = ("unauthorized", "authentication required", "no basic auth", "denied", "forbidden", "status: 401")
_INSECURE = ("http response to https client", "x509", "certificate")
_ABSENT = re.compile(
    r"(manifest|name|blob|tag)[ _]unknown|manifest for .* not found|not known to registry|no such image|does not exist"
    r"|: not found\b|\b404 not found|status( code)?:? 404\b"
)


def says_no_room(words: str) -> bool:
    """Whether a disk or a quota is full."""
    said = words.lower()
    return any(part in said for part in _NO_ROOM)


def says_absent(words: str) -> bool:
    """Whether there is no such repository, tag or digest: not where a registry is ill, or tells nobody."""
    said = words.lower()
    if says_no_room(said) or _PASSING.search(said) or any(part in said for part in _REFUSED):
        return False
    return _ABSENT.search(said) is not None


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
    if says_no_room(said):
        return UnavailableError(
            thing, found=words, remedy=f"Free space at the engine or at {registry}, whichever is full"
        )
    if _PASSING.search(said):
        return _later(thing, registry, words)
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
    if says_absent(said):
        return InputError(
            thing, found=words, wanted=reference, remedy="Correct the name, the tag or the digest"
        )
    return _later(thing, registry, words)


def _later(thing: str, registry: str, words: str) -> UnavailableError:
    return UnavailableError(thing, found=words, remedy=f"Look whether {registry} answers, then run it again")
