"""Each operator once, in the order of the flow."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_model_deploy import (
    BuildImageOperator,
    BuildModelOperator,
    DataSource,
    EvaluateModelOperator,
    GateConfig,
    IngestModelOperator,
    ModelCode,
    MonitorReleaseOperator,
    OptimizeModelOperator,
    PrepareReleaseOperator,
    PruneModelOperator,
    QuantizeModelOperator,
    RollbackOperator,
    RolloutOperator,
    TrainModelOperator,
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

with DAG("operators_one_by_one", schedule=None, catchup=False, max_active_runs=1):
    # [START train]
    train = TrainModelOperator(task_id="train", code=DIGITS, name="digits", epochs=12)
    # [END train]

    # [START prune]
    prune = PruneModelOperator(
        task_id="prune",
        model=train.output,
        code=DIGITS,
        method="channels",
        ratio=0.6,
        recovery_epochs=12,
    )
    # [END prune]

    # [START quantize]
    quantize = QuantizeModelOperator(
        task_id="quantize", model=prune.output, code=DIGITS, mode="static", calibration_samples=256
    )
    # [END quantize]

    # [START optimize]
    optimize = OptimizeModelOperator(task_id="optimize", model=quantize.output, code=DIGITS, threads=1)
    # [END optimize]

    # [START build]
    build = BuildModelOperator(
        task_id="build", model=optimize.output, baseline=train.output, code=DIGITS, golden_requests=16
    )
    # [END build]

    # [START evaluate]
    evaluate = EvaluateModelOperator(
        task_id="evaluate",
        servable=build.output,
        baseline=train.output,
        code=DIGITS,
        gates=GateConfig(max_quality_drop=1.0, min_size_ratio=10, max_latency_ms=100),
    )
    # [END evaluate]

    # [START prepare]
    prepare = PrepareReleaseOperator(
        task_id="prepare",
        servable=build.output,
        evaluation=evaluate.output,
        target="host",
        latency_ms=100,
        latency_share=0.95,
    )
    # [END prepare]

    # [START package]
    package = BuildImageOperator(task_id="package", servable=build.output, plan=prepare.output)
    # [END package]

    # [START rollout]
    rollout = RolloutOperator(task_id="rollout", release=package.output, target="host", port=8500)
    # [END rollout]

    # [START monitor]
    monitor = MonitorReleaseOperator(
        task_id="monitor",
        release=package.output,
        window_s=60,
        fail_on=("failing", "degraded"),
    )
    # [END monitor]

    rollout >> monitor

with DAG("take_in_a_model", schedule=None, catchup=False):
    # [START ingest]
    weights = IngestModelOperator(
        task_id="ingest_weights",
        source="/srv/models/digits.safetensors",
        name="digits",
        code=DIGITS,
    )
    graph = IngestModelOperator(task_id="ingest_onnx", source="/srv/models/digits.onnx", name="digits")
    # [END ingest]

with DAG("roll_back", schedule=None, catchup=False, max_active_runs=1):
    # [START rollback]
    RollbackOperator(task_id="roll_back", name="digits")
    # [END rollback]

# [START automatic_rollback]
with DAG("deploy_or_roll_back", schedule="@weekly", catchup=False, max_active_runs=1):
    pipeline = model_deploy_pipeline(code=DIGITS, name="digits")
    watch = MonitorReleaseOperator(
        task_id="watch", release=pipeline.package_image.output, window_s=60, fail_on=()
    )

    @task.short_circuit
    def is_failing(watched: dict) -> bool:
        """Go on to the rollback only where this very release was seen failing."""
        return watched["details"]["verdict"]["status"] == "failing"

    pipeline.deploy_model >> watch
    is_failing(watch.output) >> RollbackOperator(task_id="back", name="digits")
# [END automatic_rollback]
