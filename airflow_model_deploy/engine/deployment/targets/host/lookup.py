"""Finds a service by its folder, as it was described when it was last deployed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.host.service import Service
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def find_service(root: Path, name: str) -> Service | None:
    """Return the service `name` below `root`; None where it was never deployed.

    Raises:
        InputError: its desired.json can't be read.
    """
    path = root / name / "desired.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Service(
            root=root,
            name=name,
            host=document["host"],
            port=document["port"],
            python=document["python"],
            threads=document["threads"],
            drain_s=document["drain_seconds"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            str(path),
            found=repr(error),
            wanted="the decision that a deployment wrote",
            remedy="Deploy again.",
        ) from error
