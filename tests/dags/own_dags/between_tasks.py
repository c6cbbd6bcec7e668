"""A Dag of somebody's own: the whole chain in one call, between tasks of theirs. Deploys whatever it is told to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, task, teardown

import airflow_model_deploy as md

MODELS = {
    name: md.ModelCode(
        factory=md.UserFunction("toy_model:build", {"width": width}),
        fit=md.UserFunction("toy_model:fit"),
        data=md.DataSource(
            loader=md.UserFunction("toy_data:load"), fingerprint=md.UserFunction("toy_data:fingerprint")
        ),
    )
    for name, width in {"moons-large": 64, "moons-small": 32}.items()
}

REPORTS = Path(os.environ["OWN_DAGS_OUTPUT"], "reports")


# [START report]
@teardown
def keep_report(tasks: dict[str, str], ti: Any = None, run_id: Any = None) -> None:
    """Write the report of this run, also of one that ended early."""
    from airflow_model_deploy.engine.steps.report import report_of_run, write_run_report

    results = {stage: ti.xcom_pull(task_ids=one) for stage, one in tasks.items()}
    report = report_of_run({stage: one for stage, one in results.items() if one}, run_id=run_id)
    write_run_report(report, REPORTS / ti.dag_id / run_id)


# [END report]

with DAG(
    "between_tasks",
    schedule=None,
    catchup=False,
    params={
        "name": Param("moons-large", enum=sorted(MODELS)),
        "port": Param(8500, type="integer"),
        "min_size_ratio": Param(1.0, type="number"),
    },
):

    @task
    def wait_for_data() -> str:
        return "the data is there"

    @task
    def tell_the_team(watched: dict) -> str:
        return f"{watched['details']['verdict']['status']} at {watched['details']['url']}"

    pipeline = md.model_deploy_pipeline(
        code=MODELS,
        name="{{ params.name }}",
        epochs=60,
        compression=md.CompressionConfig(
            method="channels", ratio=0.5, recovery_epochs=40, quantization="dynamic"
        ),
        gates=md.GateConfig(max_quality_drop=5, min_size_ratio="{{ params.min_size_ratio }}"),
        service=md.ServiceConfig(port="{{ params.port }}", window_s=2, latency_ms=1000),
        asset="model/moons",
    )
    # [START keep_report]
    tasks = {stage: operator.task_id for stage, operator in pipeline.stages.items()}
    pipeline.monitor_model >> keep_report(tasks)
    # [END keep_report]

    wait_for_data() >> pipeline.train_model
    tell_the_team(pipeline.monitor_model.output)
