"""A Dag whose training takes longer than anybody waits: to be killed, marked failed, and timed out."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

import airflow_model_deploy as md

CODE = md.ModelCode(
    factory=md.UserFunction("toy_model:build"),
    fit=md.UserFunction("toy_model:fit_for_long"),
    data=md.DataSource(loader=md.UserFunction("toy_data:load")),
)

with DAG("long_training", schedule=None, catchup=False, max_active_runs=4):
    md.TrainModelOperator(task_id="train", code=CODE, name="toy")

with DAG("short_patience", schedule=None, catchup=False):
    md.TrainModelOperator(task_id="train", code=CODE, name="toy", execution_timeout=timedelta(seconds=12))
