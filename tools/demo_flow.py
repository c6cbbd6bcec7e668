"""A run of the reference Dag as the demo follows it: stage by stage, its results, its report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_server import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_server import AirflowServer

DAG_ID, SERVICE = "model_deploy", "digits"
DEMO = REPOSITORY / "demo"
STAGES = (
    "train_model",
    "compress_model",
    "quantize_model",
    "optimize_model",
    "build_model",
    "test_model",
    "prepare_deployment",
    "package_image",
    "deploy_model",
    "monitor_model",
)
_FINAL = {"success", "failed", "upstream_failed", "skipped", "removed"}


def follow(airflow: AirflowServer, run_id: str) -> str:
    """Print each stage as it ends; returns the run's final state."""
    seen: set[str] = set()
    while True:
        state = airflow.run_state(DAG_ID, run_id)
        tasks = {task["task_id"]: task for task in airflow.tasks(DAG_ID, run_id)}
        for stage in STAGES:
            task = tasks.get(stage)
            if task and task["state"] in _FINAL and stage not in seen:
                seen.add(stage)
                print(f"  {len(seen):2}/10  {stage:20} {_outcome(airflow, run_id, task)}", flush=True)
        if state in ("success", "failed"):
            return state
        time.sleep(0.5)


def collect(airflow: AirflowServer, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the result of every stage that has ended well."""
    done = {task["task_id"] for task in airflow.tasks(DAG_ID, run_id) if task["state"] == "success"}
    return {stage: airflow.result(DAG_ID, run_id, stage) for stage in STAGES if stage in done}


def explain(airflow: AirflowServer, run_id: str) -> None:
    """Print the end of the log of each failed stage."""
    for task in airflow.tasks(DAG_ID, run_id):
        if task["state"] == "failed":
            lines = airflow.log(DAG_ID, run_id, task["task_id"], task["try_number"])
            print(f"\nThe last lines of {task['task_id']}:")
            print("\n".join(f"    {line}" for line in lines[-25:]))


def write_report(
    results: dict[str, dict[str, Any]],
    run_id: str,
    folder: Path = DEMO,
    rollouts: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write report.json and report.html into a folder; of a service in a cluster with its `rollouts`."""
    from airflow_model_deploy.engine.artifacts import Store
    from airflow_model_deploy.engine.steps.report import plan_of_run, report_of_run, write_run_report

    plan = plan_of_run(results, Store(store_of(results)))
    report = report_of_run(results, run_id=run_id, plan=plan, rollouts=rollouts)
    write_run_report(report, folder)
    return report


def store_of(results: dict[str, dict[str, Any]]) -> str:
    """Return the URL of the store that a run wrote to."""
    # An artifact's URI names its store: <store>/artifacts/<digest>.
    return str(results["compress_model"]["artifact"]["uri"].rpartition("/artifacts/")[0])


def place_settings(folder: Path, registry: str = "") -> dict[str, str]:
    """Return the settings that put store and services below a folder, and images into a registry."""
    return {
        "AIRFLOW__MODEL_DEPLOY__REGISTRY": registry,
        "AIRFLOW__MODEL_DEPLOY__STORE": f"file://{folder / 'store'}",
        "AIRFLOW__MODEL_DEPLOY__HOST_ROOT": str(folder / "host"),
    }


def _outcome(airflow: AirflowServer, run_id: str, task: dict[str, Any]) -> str:
    if task["state"] != "success":
        return str(task["state"])
    result = airflow.result(DAG_ID, run_id, task["task_id"])
    own = f"{result['duration_s']:5.1f} s"
    digest = ((result.get("artifact") or {}).get("digest") or "")[7:19]
    return f"{own}  {'found ' if result['cached'] else ''}{digest}".rstrip()
