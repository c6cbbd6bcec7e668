"""The whole flow to a Kubernetes cluster, a wait for a service of another Dag, and the way back."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_model_deploy import (
    DataSource,
    ImageConfig,
    KubernetesConfig,
    ModelCode,
    ModelServiceSensor,
    RollbackOperator,
    RolloutConfig,
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

# [START cluster]
MODELS = KubernetesConfig(
    namespace="models",
    driver_image="registry.example:5000/models/driver@sha256:" + "0" * 64,  # what the build printed
    replicas=3,
    deferrable=True,
    rollout=RolloutConfig(strategy="canary", weights=(0.1, 0.5), bake_s=120),
)
# [END cluster]

with DAG("digits_to_a_cluster", schedule=None, catchup=False, max_active_runs=1):
    # [START pipeline]
    model_deploy_pipeline(
        code=DIGITS,
        name="digits",
        service=ServiceConfig(
            target="kubernetes",
            image=ImageConfig(registry="registry.example:5000/models"),
            kubernetes=MODELS,
            window_s=60,
        ),
    )
    # [END pipeline]

with DAG("digits_back_in_the_cluster", schedule=None, catchup=False):
    # [START rollback]
    RollbackOperator(task_id="roll_back", name="digits", target="kubernetes", kubernetes=MODELS)
    # [END rollback]

with DAG("after_the_service", schedule=None, catchup=False):
    # [START sensor]
    ModelServiceSensor(
        task_id="digits_serves",
        name="digits",
        namespace="models",
        mode="reschedule",
        poke_interval=30,
    )
    # [END sensor]
