"""What a store's place says when it refuses, told so that the reader can act; knows no artifact."""

from __future__ import annotations

import errno
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_S3 = ("s3://", "s3a://")
# Refusals that waiting doesn't mend; a full disk may be emptied.
_LASTING = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
# Errors of libraries that may not be installed, by where they are defined.
_FOREIGN = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp.client_exceptions": ("ClientError",),
}
_MISCONFIGURED = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ParamValidationError",
    "ProfileNotFound",
    "InvalidRegionError",
)


def is_local(url: str) -> bool:
    """Whether a store's URL is a folder of this machine."""
    return urlsplit(url).scheme in ("", "file")


def file_system_options(url: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what fsspec opens a place with.

    Nothing that was listed is remembered: other processes write there, and a memory would hide it.
    """
    return {**({} if is_local(url) else {"use_listings_cache": False}), **(options or {})}


def upload_options(url: str) -> dict[str, Any]:
    """Return how a large file goes there: s3fs's own parts, ten of 50 MiB at once, are memory that a step needs."""
    return {"chunksize": 16 << 20, "max_concurrency": 4} if url.startswith(_S3) else {}


def check_url(url: str) -> None:
    """Refuse a URL that holds a password: it goes into requests, results and logs."""
    if urlsplit(url).password:
        raise InputError(
            "the store's URL holds a password",
            wanted="a URL without credentials",
            remedy="Put them into an Airflow connection, and name it as `store_conn_id`.",
        )


@contextmanager
def storing(url: str) -> Iterator[None]:
    """Turn the refusals of a file system, here or elsewhere, into errors that name the store."""
    try:
        yield
    except _failures(url) as error:
        raise (_here(url, error) if is_local(url) else _elsewhere(url, error)) from error


def _failures(url: str) -> tuple[type[Exception], ...]:
    # ValueError: what an endpoint that is no URL is told by.
    known: list[type[Exception]] = [OSError] if is_local(url) else [OSError, ValueError]
    for module, names in _FOREIGN.items():
        if loaded := sys.modules.get(module):
            known += [getattr(loaded, name) for name in names]
    return tuple(known)


def _here(url: str, error: Exception) -> ModelDeployError:
    if getattr(error, "errno", None) not in _LASTING:
        return UnavailableError(
            f"writing to the store {url} failed",
            found=str(error),
            remedy="Free space or restore access; nothing was published. Then run the step again.",
        )
    return InputError(
        f"the store {url} can't be written",
        found=str(error),
        wanted="a place that this user may write",
        remedy="Give this user access, or name another store.",
    )


def _elsewhere(url: str, error: Exception) -> ModelDeployError:
    found = str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return InputError(
            f"the store {url} isn't there",
            found=found,
            wanted="a bucket that exists",
            remedy="Make it, or name another store.",
        )
    if isinstance(error, (PermissionError, ValueError)) or type(error).__name__ in _MISCONFIGURED:
        return InputError(
            f"the store {url} can't be used",
            found=found,
            wanted="an endpoint, and credentials that may list, read, write and delete below it",
            remedy="Correct the connection that `store_conn_id` names, or the permissions of its user.",
        )
    return UnavailableError(
        f"the store {url} doesn't answer as it should",
        found=f"{type(error).__name__}: {found}",
        remedy="What was published stays; run the step again when the service answers.",
    )
