"""Pruning by what the training data says, and of a transformer's feed-forward neurons."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_model_deploy import (
    DataSource,
    IngestModelOperator,
    ModelCode,
    PruneModelOperator,
    UserFunction,
)

# [START code]
ENCODER = ModelCode(
    factory=UserFunction("my_encoder:build"),
    fit=UserFunction("my_encoder:fit"),
    data=DataSource(loader=UserFunction("my_encoder:load"), version="2026-11"),
    loss="cross_entropy",
)
# [END code]

with DAG("prune_an_encoder", schedule=None, catchup=False):
    weights = IngestModelOperator(
        task_id="ingest", source="/srv/models/encoder.safetensors", name="encoder", code=ENCODER
    )

    # [START by_gradient]
    by_gradient = PruneModelOperator(
        task_id="by_gradient",
        model=weights.output,
        code=ENCODER,
        method="gradient-mean",
        exclude=["*classifier*"],
        recovery_epochs=4,
    )
    # [END by_gradient]

    # [START two_of_four]
    two_of_four = PruneModelOperator(
        task_id="two_of_four",
        model=weights.output,
        code=ENCODER,
        method="wanda-ratio",
        scope="2:4",
        score_samples=128,
        recovery_epochs=4,
    )
    # [END two_of_four]

    # [START neurons]
    neurons = PruneModelOperator(
        task_id="neurons",
        model=weights.output,
        code=ENCODER,
        method="ffn",
        ratio=0.25,
        norm="taylor",
        recovery_epochs=4,
    )
    # [END neurons]
