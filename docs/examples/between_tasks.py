"""Single operators between other tasks of a Dag."""

# [START between]
from airflow.sdk import DAG, task

from airflow_model_deploy import (
    DataSource,
    IngestModelOperator,
    ModelCode,
    PruneModelOperator,
    QuantizeModelOperator,
    UserFunction,
)

DIGITS = ModelCode(
    factory=UserFunction("example_models.digits_model:build_model"),
    fit=UserFunction("example_models.digits_model:fit"),
    data=DataSource(
        loader=UserFunction("example_models.digits_data:load"),
        fingerprint=UserFunction("example_models.digits_data:fingerprint"),
    ),
)

with DAG("compress_only", schedule=None, catchup=False):

    @task
    def newest_weights() -> str:
        """Find the weights; whatever the Dag did so far."""
        return "/srv/models/digits.safetensors"

    @task
    def publish(quantized: dict) -> None:
        """Use a result: where the artifact is, and how good it is."""
        print(quantized["artifact"]["uri"], quantized["metrics"]["quality"])

    ingested = IngestModelOperator(
        task_id="ingest", source="{{ ti.xcom_pull('newest_weights') }}", name="digits", code=DIGITS
    )
    pruned = PruneModelOperator(
        task_id="prune", model=ingested.output, code=DIGITS, method="channels", recovery_epochs=12
    )
    quantized = QuantizeModelOperator(task_id="quantize", model=pruned.output, code=DIGITS)

    newest_weights() >> ingested
    publish(quantized.output)
# [END between]
