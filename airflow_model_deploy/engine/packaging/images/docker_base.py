"""What an image is built upon, on an engine: pinned by content before anything is read from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers import (
    auth_config,
    engine_errors,
    ensure_image,
    find_image,
    registry_errors,
    says_absent,
)
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.packaging.images.reference import LayoutReference, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from docker import APIClient

    from airflow_model_deploy.engine.containers import Credentials
    from airflow_model_deploy.engine.packaging.images.reference import ImageReference


@dataclass(frozen=True)
class PinnedBase:
    """A base that lies on the engine.

    Args:
        pinned: what FROM names: "repository@sha256:..", or its id where it was only ever built there.
        digest: of its manifest or index as the registry calls it, else its id.
        config: as OCI has it: os, architecture, rootfs.diff_ids, config.
    """

    pinned: str
    digest: str
    config: dict[str, Any]

    @property
    def command(self) -> tuple[str, ...] | None:
        """Its CMD."""
        command = self.config["config"].get("Cmd")
        return None if command is None else tuple(command)


def pin_base(
    client: APIClient, base: str, credentials: Sequence[Credentials], log: Callable[[str], None]
) -> PinnedBase:
    """Find out what a base is now, and get it onto the engine.

    A tag is looked up at its registry each time, as another builder would: what the engine pulled a year ago is
    another image. Where the registry doesn't answer, or has no such image, the one on the engine is taken, and the
    log says so.

    Raises:
        InputError: no such base, no access to it, or one that an engine can't build upon.
        UnavailableError: the registry doesn't answer, and the engine has no such image.
    """
    if base.startswith("sha256:"):
        return _pinned(client, base, base, credentials, log)
    reference = parse_reference(base)
    if isinstance(reference, LayoutReference):
        raise InputError(
            "the base of an image",
            found=base,
            wanted="one in a registry, or on the engine: an engine can't build upon a folder",
            remedy="Push the base, or build with the backend that needs no engine (oci)",
        )
    if reference.digest:
        return _pinned(client, f"{reference.name}@{reference.digest}", reference.digest, credentials, log)
    return _pin_tag(client, reference, base, credentials, log)


def _pin_tag(
    client: APIClient,
    reference: ImageReference,
    base: str,
    credentials: Sequence[Credentials],
    log: Callable[[str], None],
) -> PinnedBase:
    here = find_image(client, base)
    known = None if here is None else repo_digest(here, reference.name)
    if here is not None and known is None:  # built here, in no registry
        return _pinned(client, str(here["Id"]), str(here["Id"]), credentials, log)
    try:
        digest = remote_digest(client, str(reference), credentials)
    except UnavailableError as e:
        if known is None:
            raise
        log(f"{base}: the registry doesn't answer ({e.found}); building upon {known}, which the engine has")
        digest = known
    except InputError as e:
        if here is None:
            raise
        log(f"{base}: the registry refuses to tell its digest ({e.found})")
        digest = None
    if digest is None and here is not None:
        # An engine with containerd's store gives digests to images that never were in a registry.
        log(f"{base}: not to be had from a registry; building upon {here['Id']}, which the engine has")
        return _pinned(client, str(here["Id"]), str(here["Id"]), credentials, log)
    if digest is None:
        raise InputError(f"the base {base}", found="no such image in its registry", wanted="one that exists")
    return _pinned(client, f"{reference.name}@{digest}", digest, credentials, log)


def _pinned(
    client: APIClient,
    pinned: str,
    digest: str,
    credentials: Sequence[Credentials],
    log: Callable[[str], None],
) -> PinnedBase:
    ensure_image(client, pinned, credentials, log=log)
    image = find_image(client, pinned)
    if image is None:
        raise InputError(
            f"the base {pinned}", found="removed from the engine just now", wanted="to stay there"
        )
    config = {
        "os": image.get("Os"),
        "architecture": image.get("Architecture"),
        "rootfs": {"diff_ids": (image.get("RootFS") or {}).get("Layers") or []},
        "config": image.get("Config") or {},
    }
    return PinnedBase(pinned, digest, config)


def remote_digest(client: APIClient, reference: str, credentials: Sequence[Credentials]) -> str | None:
    """The digest that a tag stands for in its registry, asked by the engine; None where there is no such tag.

    Raises:
        InputError: no access to the repository, or a registry that the engine doesn't trust.
        UnavailableError: the registry or the engine doesn't answer.
    """
    from docker.errors import APIError

    thing = f"the digest of {reference} can't be looked up"
    with engine_errors(thing), registry_errors(thing, reference):
        try:
            found = client.inspect_distribution(reference, auth_config=auth_config(credentials, reference))
        except APIError as e:
            if says_absent(str(e.explanation or e)):
                return None
            raise
    return str(found["Descriptor"]["digest"])


def repo_digest(image: dict[str, Any], repository: str) -> str | None:
    """The digest by which an image on the engine is known in a repository, or None."""
    for known in image.get("RepoDigests") or ():
        name, _, digest = known.partition("@")
        if str(parse_reference(name)) == repository:
            return str(digest)
    return None
