"""The whole flow in one's own Dag."""

# [START own_dag]
from airflow.sdk import DAG

from airflow_model_deploy import DataSource, ModelCode, UserFunction, model_deploy_pipeline

DIGITS = ModelCode(
    factory=UserFunction("example_models.digits_model:build_model"),
    fit=UserFunction("example_models.digits_model:fit"),
    data=DataSource(
        loader=UserFunction("example_models.digits_data:load"),
        fingerprint=UserFunction("example_models.digits_data:fingerprint"),
    ),
    metric="accuracy",
)

with DAG("digits_weekly", schedule="@weekly", catchup=False, max_active_runs=1):
    model_deploy_pipeline(code=DIGITS, name="digits")
# [END own_dag]
