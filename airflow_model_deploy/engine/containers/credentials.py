"""Who may read and write which registry; knows no way to store it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


@dataclass(frozen=True)
class Credentials:
    """A user's name and password (or token) at one registry.

    Args:
        registry: "registry.example:5000", or with the beginning of a repository's path
            ("gitlab.example/group") where a registry gives out tokens for a part of it only. A scheme is ignored.
        username: may be empty where the password is a token that says it all.
        password: never shown: not in a log, not in an error.
    """

    registry: str
    username: str = field(repr=False)
    password: str = field(repr=False)

    def matches(self, reference: str) -> bool:
        """Whether they are for the registry that an image's reference names."""
        wanted = _scope(self.registry)
        registry, path = split_registry(reference)
        name = f"{registry}/{path.partition('@')[0].partition(':')[0]}"
        return name == wanted or name.startswith(f"{wanted}/")


def find_credentials(credentials: Sequence[Credentials], reference: str) -> Credentials | None:
    """The credentials for a reference: those with the longest match, or None."""
    fitting = [c for c in credentials if c.matches(reference)]
    return max(fitting, key=lambda c: len(_scope(c.registry)), default=None)


def split_registry(reference: str) -> tuple[str, str]:
    """("localhost:5000", "models/digits:1") of a reference; what names no registry belongs to Docker Hub.

    The one place that tells a registry from the first part of a path: who is asked, and who gets which password.
    """
    named = named_registry(reference)
    return (DOCKER_HUB, reference) if named is None else (named, reference.partition("/")[2])


def named_registry(reference: str) -> str | None:
    """The registry that a reference names, as docker tells it: by a dot, a port or a capital; None: it names none."""
    first, slash, _ = reference.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return None
    return DOCKER_HUB if first in _HUB_NAMES else first


def _scope(registry: str) -> str:
    bare = registry.split("://", 1)[-1].strip("/")
    host, slash, path = bare.partition("/")
    if host in _HUB_NAMES:
        # "https://index.docker.io/v1/" is how Docker itself writes its own registry.
        return DOCKER_HUB if path in ("", "v1", "v2") else f"{DOCKER_HUB}/{path}"
    return f"{host}{slash}{path}"
