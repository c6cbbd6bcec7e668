"""The reference Dag: a trained model becomes a running, watched service.

train -> compress -> quantize -> optimize -> build -> test -> prepare -> package -> deploy -> monitor

To use it for your own model, list its code under MODELS. To retrain on a schedule, set SCHEDULE.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_model_deploy import (
    Budget,
    CompressionConfig,
    DataSource,
    GateConfig,
    KubernetesConfig,
    ModelCode,
    RolloutConfig,
    ServiceConfig,
    UserFunction,
    model_deploy_pipeline,
)
from airflow_model_deploy.version_compat import scheduled_runs_only

SCHEDULE = None  # "@weekly" retrains and deploys every week

# The models that the form offers. Only what stands here can be imported by a run.
MODELS = {
    "digits": ModelCode(
        factory=UserFunction("example_models.digits_model:build_model"),
        fit=UserFunction("example_models.digits_model:fit"),
        data=DataSource(
            loader=UserFunction("example_models.digits_data:load"),
            fingerprint=UserFunction("example_models.digits_data:fingerprint"),
        ),
        metric="accuracy",
        loss="cross_entropy",
    ),
}

PARAMS = {
    "model_name": Param(
        "digits",
        type="string",
        enum=sorted(MODELS),
        title="Model",
        description="Which of the models that this Dag's author has listed. Its name is also the service's.",
        section="Model",
    ),
    "model": Param(
        None,
        type=["null", "string"],  # the form takes "" for a missing value
        title="Trained model",
        description="Empty: train it. Otherwise where it is: weights (.safetensors), an .onnx file, or the URI of"
        " an artifact from an earlier run.",
        section="Model",
    ),
    "epochs": Param(
        12,
        type="integer",
        minimum=1,
        maximum=1000,
        title="Training epochs",
        description="Passes over the training data.",
        section="Model",
    ),
    "method": Param(
        "auto",
        type="string",
        enum=[
            "auto",
            "channels",
            "ffn",
            "magnitude-mean",
            "magnitude-ratio",
            "gradient-mean",
            "gradient-ratio",
            "taylor-mean",
            "taylor-ratio",
            "wanda-ratio",
            "none",
        ],
        values_display={
            "auto": "planned: as small and fast as the budget allows",
            "channels": "prune whole channels: smaller and faster",
            "ffn": "prune transformers' feed-forward neurons: smaller and faster",
            "magnitude-mean": "prune weights below the mean magnitude",
            "magnitude-ratio": "prune a share of the smallest weights",
            "gradient-mean": "prune weights below the mean gradient",
            "gradient-ratio": "prune a share of the weights with the smallest gradients",
            "taylor-mean": "prune weights below the mean of |weight x gradient|",
            "taylor-ratio": "prune a share by |weight x gradient|",
            "wanda-ratio": "prune a share by |weight| x norm of its inputs",
            "none": "no pruning",
        },
        title="Method",
        description="How the trained model is compressed. Planned: structure and number formats are chosen under the"
        " budget, from measurements.",
        section="Compression",
    ),
    "max_quality_drop": Param(
        1.0,
        type="number",
        minimum=0,
        title="Budget: loss of quality",
        description="Against the trained model; percentage points for accuracy. The plan keeps it, and the test fails"
        " the run on more.",
        section="Compression",
    ),
    "max_size_mb": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="Budget: size (MB)",
        description="Of the model file. Empty: as small as the quality allows.",
        section="Compression",
    ),
    "recovery_epochs": Param(
        12,
        type="integer",
        minimum=0,
        maximum=1000,
        title="Recovery epochs",
        description="Training after pruning, so that the rest makes up for what went.",
        section="Compression",
    ),
    "prune_ratio": Param(
        0.6,
        type="number",
        exclusiveMinimum=0,
        exclusiveMaximum=1,
        title="Pruned share",
        description="Share of channels, neurons or weights that goes. The plan and the methods by the mean find their"
        " own.",
        section="Compression",
    ),
    "quantization": Param(
        "auto",
        type="string",
        enum=["auto", "static", "dynamic", "weight-only", "none"],
        values_display={
            "auto": "as planned; without a plan what suits the model",
            "static": "int8 weights and activations, calibrated (convolutions)",
            "dynamic": "int8 weights, activations at run time (transformers)",
            "weight-only": "int8 weights, float activations",
            "none": "no quantization",
        },
        title="Quantization",
        description="How numbers become 8-bit integers.",
        section="Compression",
    ),
    "max_latency_ms": Param(
        100.0,
        type="number",
        exclusiveMinimum=0,
        title="Latency objective (ms)",
        description="Bound of a single request, in the test and in service.",
        section="Service",
    ),
    "target": Param(
        "host",
        type="string",
        enum=["host", "docker", "kubernetes"],
        values_display={
            "host": "the worker's own machine, as processes",
            "docker": "a Docker engine, as containers",
            "kubernetes": "a Kubernetes cluster, as pods behind a Service",
        },
        title="Target",
        description="Where the service runs. For 'docker' and 'kubernetes' an image is built, and pushed where"
        " [model_deploy] registry names a registry; a cluster needs one.",
        section="Service",
    ),
    "port": Param(
        8500,
        type="integer",
        minimum=1024,
        maximum=65535,
        title="Port",
        description="Where the service listens, on 127.0.0.1. In a cluster the Service has port 80.",
        section="Service",
    ),
    "monitor_seconds": Param(
        10,
        type="integer",
        minimum=1,
        maximum=3600,
        title="Watch for (s)",
        description="How long the new service is watched before the verdict.",
        section="Service",
    ),
    "namespace": Param(
        None,
        type=["null", "string"],
        pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        title="Namespace",
        description="Where service and driver run. Empty: the namespace of the connection to the cluster.",
        section="Kubernetes",
    ),
    "strategy": Param(
        "blue-green",
        type="string",
        enum=["blue-green", "canary", "rolling"],
        values_display={
            "blue-green": "a full second set, then all requests at once",
            "canary": "a rising share of the requests, then all",
            "rolling": "pod by pod, where a second set doesn't fit",
        },
        title="Strategy",
        description="How the new revision takes over. Whichever it is: if it does worse, the old one gets all requests"
        " back.",
        section="Kubernetes",
    ),
    "replicas": Param(
        2,
        type="integer",
        minimum=1,
        maximum=1000,
        title="Replicas",
        description="Copies of the server. Two survive the loss of a node.",
        section="Kubernetes",
    ),
    "cpu_request": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="CPU of a replica (cores)",
        description="What each asks of its node. Empty: one core a thread of the server.",
        section="Kubernetes",
    ),
    "bake_seconds": Param(
        0,
        type="integer",
        minimum=0,
        maximum=1500,  # three phases of a canary and their patience fit execution_timeout
        title="Bake for (s)",
        description="How long each share of the requests, and the whole after the switch, is watched. 0: the golden"
        " requests alone decide, as a service without traffic needs it. With more, a new revision that gets too few"
        " requests to be judged goes back.",
        section="Kubernetes",
    ),
}

with DAG(
    dag_id="model_deploy",
    description="Train, compress, quantize, optimize, build, test, prepare, package, deploy and monitor a model.",
    schedule=SCHEDULE,
    catchup=False,
    max_active_runs=1,  # one rollout of a service at a time
    dagrun_timeout=timedelta(hours=12),
    default_args={
        "owner": "ml-platform",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(hours=2),
    },
    params=PARAMS,
    tags=["model-deploy", "reference"],
    doc_md=__doc__,
    **scheduled_runs_only(),
) as dag:
    model_deploy_pipeline(
        code=MODELS,
        name="{{ params.model_name }}",
        source="{{ params.model or '' }}",
        epochs="{{ params.epochs }}",
        compression=CompressionConfig(
            method="{{ params.method }}",
            budget=Budget(max_drop="{{ params.max_quality_drop }}", max_size_mb="{{ params.max_size_mb }}"),
            ratio="{{ params.prune_ratio }}",
            recovery_epochs="{{ params.recovery_epochs }}",
            quantization="{{ params.quantization }}",
        ),
        gates=GateConfig(
            max_quality_drop="{{ params.max_quality_drop }}", max_latency_ms="{{ params.max_latency_ms }}"
        ),
        service=ServiceConfig(
            target="{{ params.target }}",
            port="{{ params.port }}",
            latency_ms="{{ params.max_latency_ms }}",
            window_s="{{ params.monitor_seconds }}",
            kubernetes=KubernetesConfig(
                namespace="{{ params.namespace }}",
                replicas="{{ params.replicas }}",
                cpu_request="{{ params.cpu_request }}",
                rollout=RolloutConfig(strategy="{{ params.strategy }}", bake_s="{{ params.bake_seconds }}"),
            ),
        ),
        asset="model-deploy",
        group_id=None,  # the graph shows the ten tasks
    )
