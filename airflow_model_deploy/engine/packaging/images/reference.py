"""Names of images, read as docker reads them; knows nothing of what they name."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from airflow_model_deploy.engine.containers import split_registry
from airflow_model_deploy.engine.errors import InputError

LAYOUT_PREFIX = "oci-layout:"

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "registry-1.docker.io"  # docker.io itself speaks no distribution API
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageReference:
    """An image, or a repository, in a registry; `tag` and `digest` may both be None for a repository."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def api_host(self) -> str:
        """The host, with its port, that answers for the registry."""
        return _DOCKER_HUB_API if self.registry == _DOCKER_HUB else self.registry

    @property
    def name(self) -> str:
        """The repository with its registry."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest before the tag."""
        return self.digest or self.tag or "latest"

    def tagged(self, tag: str) -> str:
        """The name of an image in this repository."""
        return f"{self.name}:{tag}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class LayoutReference:
    """An image in an OCI layout, which is a folder; without tag and digest: its only image."""

    path: Path
    tag: str | None = None
    digest: str | None = None

    @property
    def wanted(self) -> str | None:
        """What to look for in the layout's index."""
        return self.digest or self.tag

    def tagged(self, tag: str) -> str:
        """The name of an image in this layout."""
        return f"{LAYOUT_PREFIX}{self.path}:{tag}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{LAYOUT_PREFIX}{self.path}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> ImageReference | LayoutReference:
    """Read "host:port/repository[:tag][@digest]" or "oci-layout:/path[:tag|@digest]".

    A name without a host means Docker Hub, one without a slash there an official image, as docker has it.

    Raises:
        InputError: the text is no such name.
    """
    rest, digest = _split_digest(text)
    if rest.startswith(LAYOUT_PREFIX):
        return _parse_layout(rest.removeprefix(LAYOUT_PREFIX), digest, text)
    rest, tag = _split_tag(rest)
    host, path = split_registry(rest)
    if host == _DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    if not (_HOST.fullmatch(host) and _REPOSITORY.fullmatch(path)):
        raise _unreadable(text)
    return ImageReference(host, path, tag, digest)


def parse_repository(text: str) -> ImageReference | LayoutReference:
    """Read where images are put: a repository or "oci-layout:/path", without tag and digest."""
    reference = parse_reference(text)
    if reference.tag or reference.digest:
        raise InputError(
            "the destination of an image",
            found=text,
            wanted="a repository without tag and digest",
            remedy="The tag is made from the content",
        )
    return reference


def is_loopback(host: str) -> bool:
    """Whether "host[:port]" is this machine, where docker too speaks plain HTTP."""
    name = re.sub(r":[0-9]+$", "", host).strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _split_digest(text: str) -> tuple[str, str | None]:
    rest, at, digest = text.rpartition("@")
    if not at:
        return text, None
    if not _DIGEST.fullmatch(digest):
        raise _unreadable(text)
    return rest, digest


def _split_tag(text: str) -> tuple[str, str | None]:
    rest, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:  # the colon before a port
        return text, None
    if not _TAG.fullmatch(tag):
        raise _unreadable(text)
    return rest, tag


def _parse_layout(text: str, digest: str | None, whole: str) -> LayoutReference:
    path, tag = _split_tag(text)
    if not path.startswith("/") or (tag and digest):
        raise _unreadable(whole)
    return LayoutReference(Path(path), tag, digest)


def _unreadable(text: str) -> InputError:
    before, at, after = text.rpartition("@")
    shown = f"..@{after}" if ":" in before and at else text  # "user:password@host" must not reach a log
    return InputError(
        "the reference of an image",
        found=repr(shown),
        wanted="host:port/repository[:tag][@sha256:..] or oci-layout:/path[:tag|@sha256:..]",
    )
