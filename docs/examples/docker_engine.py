"""The whole flow to a Docker engine, its computing steps in containers, and the way back."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_model_deploy import (
    ContainerConfig,
    DataSource,
    DockerConfig,
    ImageConfig,
    ModelCode,
    RollbackOperator,
    RunConfig,
    ServiceConfig,
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

# [START engine]
EDGE = DockerConfig(
    url="tcp://edge-7.example:2376",
    conn_id="models_registry",
    ca_cert="/etc/model-deploy/ca.pem",
    client_cert="/etc/model-deploy/cert.pem",
    client_key="/etc/model-deploy/key.pem",
)
# [END engine]

with DAG("digits_to_an_engine", schedule=None, catchup=False, max_active_runs=1):
    # [START pipeline]
    model_deploy_pipeline(
        code=DIGITS,
        name="digits",
        service=ServiceConfig(
            target="docker",
            host="10.0.7.4",
            port=8600,
            image=ImageConfig(registry="registry.example:5000/models"),
            docker=EDGE,
        ),
    )
    # [END pipeline]

with DAG("digits_back_on_the_engine", schedule=None, catchup=False):
    # [START rollback]
    RollbackOperator(task_id="roll_back", name="digits", target="docker", docker=EDGE)
    # [END rollback]

with DAG("digits_in_containers", schedule=None, catchup=False, max_active_runs=1):
    # [START containers]
    model_deploy_pipeline(
        code=DIGITS,
        name="digits",
        run=RunConfig(
            container=ContainerConfig(
                image="registry.example:5000/models/worker@sha256:" + "0" * 64,  # what the build printed
                memory_bytes=8 << 30,
                cpus=4,
                mounts=("/srv/training-data",),
            ),
        ),
    )
    # [END containers]
