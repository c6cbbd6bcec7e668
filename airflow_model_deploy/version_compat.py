"""The one place that knows which Airflow this is, and where its names lie."""

from __future__ import annotations

from typing import Any


def airflow_version() -> tuple[int, int]:
    """Return Airflow's major and minor version."""
    from airflow import __version__

    major, minor = __version__.split(".")[:2]
    return int(major), int(minor)


def read_config(section: str, option: str) -> str:
    """Read a configuration option; "" where there is none. `conf` moved to the Task SDK in Airflow 3.2."""
    try:
        from airflow.sdk import conf
    except ImportError:
        from airflow.configuration import conf  # type: ignore[assignment]

    value: Any = conf.get(section, option, fallback="")
    return str(value or "")


def scheduled_runs_only() -> dict[str, Any]:
    """Return the arguments by which a Dag refuses backfills, where Airflow has them (3.2).

    A backfill would deploy old models one after the other.
    """
    if airflow_version() < (3, 2):
        return {}
    from airflow.utils.types import DagRunType

    return {"allowed_run_types": [kind.value for kind in DagRunType if kind.value != "backfill"]}
