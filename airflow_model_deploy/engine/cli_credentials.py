"""The credentials that `docker login` wrote down, for the command line; starts no helper, writes nothing."""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_model_deploy.engine.containers import Credentials


def docker_credentials(references: Sequence[str]) -> tuple[Credentials, ...]:
    """Read credentials for some images from docker's config.json, below `DOCKER_CONFIG` or ~/.docker.

    Raises:
        InputError: the file can't be read, or leaves the credentials for one of them to a helper program.
    """
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    if not path.is_file():
        return ()
    try:
        config = json.loads(path.read_bytes())
        found = [_for_reference(config, reference, path) for reference in references]
    except (OSError, ValueError, AttributeError, TypeError, binascii.Error) as error:
        # Not the error itself: it may quote what it could not decode.
        raise InputError(
            f"docker's configuration {path} can't be read",
            found=type(error).__name__,
            wanted="the JSON that `docker login` writes",
        ) from None
    return tuple(dict.fromkeys(credentials for credentials in found if credentials is not None))


def _for_reference(config: Mapping[str, Any], reference: str, path: Path) -> Credentials | None:
    from airflow_model_deploy.engine.containers import Credentials, find_credentials, split_registry

    registry, _ = split_registry(reference)
    entries = config.get("auths") or {}
    named = find_credentials([Credentials(name, "", "") for name in entries], reference)
    entry = entries[named.registry] if named else {}
    if entry.get("auth") and not entry.get("identitytoken"):
        pair = base64.b64decode(entry["auth"], validate=True).decode()
        username, _, password = pair.partition(":")
        return Credentials(registry, username, password)
    helper = (config.get("credHelpers") or {}).get(registry) or (config.get("credsStore") if named else None)
    if helper or entry.get("identitytoken"):
        raise InputError(
            f"the credentials for {registry} can't be used",
            found=f"the helper docker-credential-{helper}" if helper else "an identity token",
            wanted=f"a user and a password in {path}",
            remedy="Set DOCKER_CONFIG to a new folder with an empty config.json ({}) and `docker login` there, "
            "with an access token as the password.",
        )
    return None
