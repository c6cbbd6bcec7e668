"""A smaller model that learns from a larger one, and a pruned model that learns from what it was."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_model_deploy import (
    DataSource,
    DistillationConfig,
    DistillModelOperator,
    ModelCode,
    PruneModelOperator,
    QuantizeModelOperator,
    TrainModelOperator,
    UserFunction,
)

# [START code]
DIGITS = ModelCode(
    factory=UserFunction("example_models.digits_model:build_model"),
    fit=UserFunction("example_models.digits_model:fit"),
    data=DataSource(
        loader=UserFunction("example_models.digits_data:load"),
        fingerprint=UserFunction("example_models.digits_data:fingerprint"),
    ),
    loss="cross_entropy",
)
# [END code]

with DAG("smaller_digits", schedule=None, catchup=False, max_active_runs=1):
    train = TrainModelOperator(task_id="train", code=DIGITS, name="digits", epochs=12)

    # [START distill]
    distill = DistillModelOperator(
        task_id="distill",
        model=train.output,
        student=UserFunction("example_models.digits_model:build_model", {"widths": [8, 16, 32, 32]}),
        code=DIGITS,
        distillation=DistillationConfig(kind="logits", temperature=4),
        epochs=20,
        learning_rate=0.01,
    )
    # [END distill]

    quantize = QuantizeModelOperator(task_id="quantize", model=distill.output, code=DIGITS)

    # [START prune]
    prune = PruneModelOperator(
        task_id="prune",
        model=train.output,
        code=DIGITS,
        method="channels",
        ratio=0.6,
        recovery_epochs=12,
        recovery_learning_rate=0.01,
        distillation=DistillationConfig(kind="logits", temperature=4, alpha=0.7),
    )
    # [END prune]
