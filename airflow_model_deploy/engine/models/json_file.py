"""Reads and writes small JSON files; the same value is the same bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object with sorted keys."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object; InputError where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(str(path), found="no such file", wanted="a model folder") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(str(path), found=f"no JSON ({error})", wanted="a JSON object") from error
    if not isinstance(value, dict):
        raise InputError(str(path), found=type(value).__name__, wanted="a JSON object")
    return value
