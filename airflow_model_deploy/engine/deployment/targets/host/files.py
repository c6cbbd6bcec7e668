"""The two files between those who decide and the supervisor: desired.json and status.json."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.desired import Desired, parse_desired
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_model_deploy.engine.deployment.targets.host.service import Service


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
    return parse_desired(document, str(path))


def write_desired(service: Service, before: Desired, **changes: Any) -> Desired:
    """Replace the decision by one with these changes, and return it."""
    desired = replace(
        before, **changes, generation=before.generation + 1, host=service.host, port=service.port
    )
    document = {
        **desired.to_json(),
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
