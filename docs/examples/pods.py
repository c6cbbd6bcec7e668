"""The whole flow with its computing steps in pods of a cluster, and its artifacts in a bucket."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_model_deploy import (
    DataSource,
    ModelCode,
    PodConfig,
    RunConfig,
    UserFunction,
    model_deploy_pipeline,
)

DIGITS = ModelCode(
    factory=UserFunction("example_models.digits_model:build_model"),
    fit=UserFunction("example_models.digits_model:fit"),
    data=DataSource(
        loader=UserFunction("example_models.digits_data:load"),
        fingerprint=UserFunction("example_models.digits_data:fingerprint"),
    ),
)

with DAG("digits_in_pods", schedule=None, catchup=False, max_active_runs=1):
    # [START pods]
    model_deploy_pipeline(
        code=DIGITS,
        name="digits",
        run=RunConfig(
            store="s3://models/store",
            store_conn_id="models_store",
            pod=PodConfig(
                image="registry.example:5000/models/worker@sha256:" + "0" * 64,  # what the build printed
                namespace="training",
                cpus=4,
                memory_bytes=8 << 30,
                gpus=1,
                deferrable=True,
            ),
        ),
    )
    # [END pods]
