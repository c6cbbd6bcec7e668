"""Gets an image onto an engine, and tells the digest behind a tag; knows no layer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.containers.causes import registry_error
from airflow_model_deploy.engine.containers.credentials import find_credentials, split_registry
from airflow_model_deploy.engine.containers.engine import engine_errors
from airflow_model_deploy.engine.containers.streams import StreamError, follow
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from docker import APIClient

    from airflow_model_deploy.engine.containers.credentials import Credentials


def ensure_image(
    client: APIClient,
    reference: str,
    credentials: Sequence[Credentials] = (),
    *,
    log: Callable[[str], None],
) -> str:
    """The id of an image on the engine; pulled where it is missing.

    Args:
        client: of the engine.
        reference: "repository@sha256:..", "repository:tag" (an image of that tag that is there already is not
            looked up again), or an image's id, which can't be pulled.
        credentials: the one for the registry is sent with this call and stored nowhere.
        log: takes the progress, line by line.

    Raises:
        InputError: no such image, no access to it, or a registry that the engine doesn't trust.
        UnavailableError: the registry or the engine doesn't answer.
    """
    found = find_image(client, reference)
    if found is not None:
        return str(found["Id"])
    if reference.startswith("sha256:"):
        raise InputError(
            f"image {reference}",
            found="not on this engine",
            remedy="Build it here, or name it by its repository",
        )
    thing = f"image {reference} can't be pulled"
    log(f"pulling {reference}")
    with engine_errors(thing), registry_errors(thing, reference):
        auth = auth_config(credentials, reference)
        follow(client.pull(*_split_tag(reference), stream=True, decode=True, auth_config=auth), log)
    found = find_image(client, reference)
    if found is None:
        raise InputError(thing, found="the engine pulled something else", wanted=reference)
    return str(found["Id"])


@contextmanager
def registry_errors(thing: str, reference: str) -> Iterator[None]:
    """Turn what the engine says of a registry inside the block into errors that name the cause."""
    from docker.errors import APIError

    try:
        yield
    except StreamError as e:
        raise registry_error(thing, reference, str(e)) from e
    except APIError as e:
        raise registry_error(thing, reference, str(e.explanation or e)) from e


def find_image(client: APIClient, reference: str) -> dict[str, Any] | None:
    """What the engine knows of an image, or None where it has none of that name."""
    from docker.errors import ImageNotFound, NotFound

    with engine_errors(f"image {reference}"):
        try:
            return dict(client.inspect_image(reference))
        except (ImageNotFound, NotFound):
            return None


def auth_config(credentials: Sequence[Credentials], reference: str) -> dict[str, str] | None:
    """What the engine wants to know for one call; None: what this machine's Docker configuration says."""
    found = find_credentials(credentials, reference)
    if found is None:
        return None
    registry = split_registry(reference)[0]
    return {"username": found.username, "password": found.password, "serveraddress": registry}


def _split_tag(reference: str) -> tuple[str, str]:
    """Repository and tag or digest; "latest" where there is neither, as docker has it."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "latest")
