"""A Dag for the model in my_model.py, with the choices that an author makes."""

# [START code]
from airflow.sdk import DAG

from airflow_model_deploy import (
    CompressionConfig,
    DataSource,
    GateConfig,
    ModelCode,
    UserFunction,
    model_deploy_pipeline,
)

QUADRANTS = ModelCode(
    factory=UserFunction("my_model:build", options={"width": 64}),
    fit=UserFunction("my_model:fit", options={"learning_rate": 0.01}),
    data=DataSource(
        loader=UserFunction("my_model:load", options={"samples": 400}),
        fingerprint=UserFunction("my_model:fingerprint"),
    ),
    metric=UserFunction("my_model:recall", options={"of_class": 1}),
)
# [END code]

# [START dag]
with DAG("quadrants", schedule=None, catchup=False, max_active_runs=1):
    model_deploy_pipeline(
        code=QUADRANTS,
        name="quadrants",
        epochs=60,
        compression=CompressionConfig(budget=0.02, recovery_epochs=30),
        gates=GateConfig(max_quality_drop=0.02, min_quality=0.9),
    )
# [END dag]

# [START trained_elsewhere]
with DAG("quadrants_trained_elsewhere", schedule=None, catchup=False, max_active_runs=1):
    model_deploy_pipeline(
        code=QUADRANTS,
        name="quadrants",
        source="/srv/models/quadrants.safetensors",
    )
# [END trained_elsewhere]

# [START without_code]
with DAG("bought_model", schedule=None, catchup=False, max_active_runs=1):
    model_deploy_pipeline(
        name="bought",
        source="/srv/models/bought.onnx",
        compression=CompressionConfig(method="none", quantization="dynamic"),
        gates=GateConfig(max_quality_drop=None, max_latency_ms=50),
    )
# [END without_code]
