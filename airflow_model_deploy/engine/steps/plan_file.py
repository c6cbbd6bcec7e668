"""The plan.json that may lie beside a model: which format each node is to have. Reads nothing else of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, get_args

from airflow_model_deploy.engine.compression import Format
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.steps.layout import PLAN

if TYPE_CHECKING:
    from pathlib import Path

PLAN_BATCH = 16  # samples a calibration run of a planned model


def plan_samples(folder: Path) -> int | None:
    """How many training samples a model's plan was calibrated on; None where it doesn't say."""
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8")).get("planning_samples")
    except (OSError, ValueError, AttributeError):
        return None  # plan_formats says what is wrong
    return found if isinstance(found, int) and found > 0 else None


def plan_formats(folder: Path) -> dict[str, Format]:
    """Node name -> format, as a model's plan says.

    Raises:
        InputError: there is no plan, or none that can be used.
    """
    path = folder / PLAN
    if not path.is_file():
        raise InputError(
            "mode 'plan' takes the formats of a plan",
            found=f"no {PLAN} beside the model",
            wanted=f"a model with a {PLAN}, as AutoCompressModelOperator makes it",
            remedy="Give that operator's result, or choose another mode.",
        )
    try:
        formats = json.loads(path.read_text(encoding="utf-8"))["formats"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"the model's {PLAN}",
            found=f"{type(error).__name__}: {error}",
            wanted='a JSON object with "formats": {node: format}',
            remedy="Correct the file.",
        ) from error
    if not isinstance(formats, dict) or not set(formats.values()) <= set(get_args(Format)):
        raise InputError(
            f'"formats" in the model\'s {PLAN}',
            found=str(formats)[:200],
            wanted=f"{{node: format}}, a format being one of {', '.join(get_args(Format))}",
            remedy="Correct the file.",
        )
    return formats
