"""The two files between those who decide and the supervisor: desired.json and status.json."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_model_deploy.engine.deployment.targets.host.service import Service

SCHEMA_VERSION = 1
Action = Literal["deploy", "rollback"]


@dataclass(frozen=True)
class Desired:
    """The traffic decision.

    Args:
        generation: grows by one with every write.
        live: the revision that gets the public requests.
        previous: where a rollback leads.
        candidate: a revision that runs beside it, on its private port only.
        unconfirmed: what made `live` the live one, until it was checked at the public port.
    """

    generation: int = 0
    live: str | None = None
    previous: str | None = None
    candidate: str | None = None
    unconfirmed: Action | None = None
    host: str | None = None
    port: int | None = None


def read_desired(service: Service) -> Desired:
    """Return the last decision; an empty one where there is none."""
    path = service.folder / "desired.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Desired()
    except ValueError as error:
        raise InputError(
            str(path), found=error, wanted="JSON", remedy="Repair it, or stop the service."
        ) from error
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"schema_version of {path}", found=document.get("schema_version"), wanted=SCHEMA_VERSION
        )
    return Desired(**{name: document.get(name) for name in Desired.__dataclass_fields__})


def write_desired(service: Service, before: Desired, **changes: Any) -> Desired:
    """Replace the decision by one with these changes, and return it."""
    desired = replace(
        before, **changes, generation=before.generation + 1, host=service.host, port=service.port
    )
    document = {
        "schema_version": SCHEMA_VERSION,
        **asdict(desired),
        "python": service.python,
        "threads": service.threads,
        "drain_seconds": service.drain_s,
    }
    _replace_file(service.folder / "desired.json", json.dumps(document, indent=1))
    return desired


def read_status(service: Service) -> dict[str, Any] | None:
    """Return what the supervisor wrote last, or None."""
    try:
        document = json.loads((service.folder / "status.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def sync_folder(folder: Path) -> None:
    """Make the folder's names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_file(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
