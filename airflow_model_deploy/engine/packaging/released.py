"""The golden requests of a servable of which nothing else may be at hand: its index says what they have to be."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import check_relative
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging.servable import INDEX
from airflow_model_deploy.engine.probing import load_golden

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_model_deploy.engine.probing import GoldenSet


def read_golden(servable: Path) -> tuple[str, GoldenSet]:
    """Return the model's name and its golden requests from a folder with the index and the requests.

    Raises:
        InputError: there is no index, or it names no golden requests.
        IntegrityError: the requests aren't those that the index lists.
    """
    try:
        index = json.loads((servable / INDEX).read_bytes())
        name, golden = str(index["name"]), index["golden"]
        listed = {entry["path"]: entry["sha256"] for entry in index["files"]}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"no servable in {servable}", found=f"{type(e).__name__}: {e}") from e
    if golden is None:
        raise InputError(
            f"the release in {servable} has no golden requests", wanted="golden.json", remedy="Build it anew."
        )
    check_relative(golden, source=str(servable / INDEX))
    path = servable / golden
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    if found != listed.get(golden):
        raise IntegrityError(
            f"the golden requests {path}", found=found, wanted=listed.get(golden, "listed in the index")
        )
    return name, load_golden(path)
