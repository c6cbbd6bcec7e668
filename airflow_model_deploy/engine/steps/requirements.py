"""What each step needs installed, read from this distribution's own metadata."""

from __future__ import annotations

from importlib.metadata import requires
from re import match

from airflow_model_deploy.engine.steps.registry import get_step

# What every step imports: specs and stores.
_BASE = ("fsspec", "pydantic", "psutil", "tqdm")


def requirements(step: str) -> list[str]:
    """Return pip requirements for one step; install the engine itself beside them with `--no-deps`."""
    wanted = {name.lower() for name in (*_BASE, *get_step(step).libraries)}
    found = {}
    for line in requires("airflow-model-deploy") or ():
        name = match(r"[A-Za-z0-9._-]+", line)
        if name and name.group().lower() in wanted:
            requirement, _, marker = line.partition(";")
            platform = " and ".join(p.strip() for p in marker.split(" and ") if "extra ==" not in p).strip()
            found[name.group().lower()] = requirement.strip() + (f"; {platform}" if platform else "")
    return [found[name] for name in sorted(found)]
