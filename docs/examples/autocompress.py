"""Examples of compression under a budget."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_model_deploy import (
    AutoCompressModelOperator,
    Budget,
    CompressionConfig,
    CompressModelOperator,
    DataSource,
    IngestModelOperator,
    ModelCode,
    OptimizeModelOperator,
    TrainModelOperator,
    UserFunction,
)

DIGITS = ModelCode(
    factory=UserFunction("example_models.digits_model:build_model"),
    fit=UserFunction("example_models.digits_model:fit"),
    data=DataSource(
        loader=UserFunction("example_models.digits_data:load"),
        fingerprint=UserFunction("example_models.digits_data:fingerprint"),
    ),
    metric="accuracy",
    loss="cross_entropy",
)

with DAG("compress_within_a_budget", schedule=None, catchup=False):
    train = TrainModelOperator(task_id="train", code=DIGITS, name="digits", epochs=12)

    # [START budget]
    compress = AutoCompressModelOperator(
        task_id="compress",
        model=train.output,
        code=DIGITS,
        budget=Budget(max_drop=1.0, max_size_mb=0.05),
        recovery_epochs=12,
    )
    optimize = OptimizeModelOperator(task_id="optimize", model=compress.output, code=DIGITS)
    # [END budget]

with DAG("compress_by_an_edited_plan", schedule=None, catchup=False):
    again = TrainModelOperator(task_id="train", code=DIGITS, name="digits", epochs=12)

    # [START plan]
    AutoCompressModelOperator(
        task_id="compress", model=again.output, code=DIGITS, budget=1.0, plan="/srv/plans/digits.json"
    )
    # [END plan]

with DAG("compress_an_embedder", schedule=None, catchup=False):
    # [START embedder]
    sentences = ModelCode(data=DataSource(UserFunction("my_sentences:load"), version="3"), metric="cosine")
    embedder = IngestModelOperator(task_id="ingest", source="/srv/models/embedder.onnx", name="embedder")
    AutoCompressModelOperator(
        task_id="compress",
        model=embedder.output,
        code=sentences,
        budget=Budget(max_drop=0.2),  # points: a mean cosine of at least 0.998
        objective="latency",
    )
    # [END embedder]

with DAG("compress_as_the_form_says", schedule=None, catchup=False, params={"method": "auto"}):
    trained = TrainModelOperator(task_id="train", code=DIGITS, name="digits", epochs=12)

    # [START method]
    CompressModelOperator(
        task_id="compress",
        model=trained.output,
        code=DIGITS,
        compression=CompressionConfig(
            method="{{ params.method }}",
            budget=1.0,
            ratio=0.6,
        ),
    )
    # [END method]
