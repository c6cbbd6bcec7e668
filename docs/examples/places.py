"""Where the steps run and keep what they make; what else a Dag can hang on to the pipeline."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, task

from airflow_model_deploy import (
    DataSource,
    ModelCode,
    RunConfig,
    ServiceConfig,
    UserFunction,
    model_deploy_pipeline,
)

# [START data]
BY_DAY = DataSource(loader=UserFunction("example_models.digits_data:load"), version="{{ ds }}")
# [END data]

DIGITS = ModelCode(
    factory=UserFunction("example_models.digits_model:build_model"),
    fit=UserFunction("example_models.digits_model:fit"),
    data=BY_DAY,
)


@task
def approve() -> None:
    """Whatever has to happen between the packaging and the rollout."""


with DAG("digits_elsewhere", schedule=None, catchup=False, max_active_runs=1):
    # [START pipeline]
    pipeline = model_deploy_pipeline(
        code=DIGITS,
        name="digits",
        run=RunConfig(store="file:///srv/model-deploy/store", python="/opt/model-deploy/bin/python"),
        service=ServiceConfig(root="/srv/model-deploy/host", port=8600, latency_ms=50, window_s=60),
        asset="digits",
    )
    # [END pipeline]

    # [START approval]
    pipeline.package_image >> approve() >> pipeline.deploy_model
    # [END approval]

# [START consumer]
with DAG("after_a_release", schedule=[Asset(name="digits/released", uri="x-model-deploy://digits/released")]):

    @task
    def tell(triggering_asset_events: dict) -> None:
        """Print which release each event is about."""
        for events in triggering_asset_events.values():
            for event in events:
                print(event.extra["step"], event.extra["digest"])

    tell()
# [END consumer]
