"""What an author of a Dag says, in a few frozen objects. Values marked templated may hold Jinja templates."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_model_deploy.engine.models import DataSource, UserFunction

__all__ = [
    "CompressionConfig",
    "DataSource",
    "GateConfig",
    "ModelCode",
    "RunConfig",
    "ServiceConfig",
    "UserFunction",
]


@dataclass(frozen=True)
class ModelCode:
    """The author's own code and data for one model. Never templated: a form must not choose what is imported.

    Args:
        factory: returns the torch.nn.Module.
        data: split "train" trains, recovers and calibrates; split "test" measures and guards.
        fit: trains a module in place; also recovers it after pruning.
        metric: "accuracy", "mae", "rmse" or a function metric(outputs, targets) -> float.
    """

    factory: UserFunction
    data: DataSource
    fit: UserFunction | None = None
    metric: str | UserFunction = "accuracy"


@dataclass(frozen=True)
class CompressionConfig:
    """How far the model is compressed. All templated."""

    prune_method: str = "channels"
    prune_ratio: float | str = 0.5
    recovery_epochs: int | str = 10
    quantization: str = "static"
    calibration_samples: int | str = 256


@dataclass(frozen=True)
class GateConfig:
    """What the servable has to keep before it may be released. None: no such gate. All templated.

    Args:
        max_quality_drop: how much worse than the ingested model; percentage points for accuracy, the metric's own
            unit otherwise.
        min_quality: the metric's own bound.
        min_size_ratio: fp32 ONNX bytes over the servable's model bytes.
        min_speedup: throughput at batch 64 on one thread over that of the fp32 ONNX export.
        max_latency_ms: median of single requests to the real server.
        max_memory_mb: peak memory of the real server.
    """

    max_quality_drop: float | str | None = 1.0
    min_quality: float | str | None = None
    min_size_ratio: float | str | None = None
    min_speedup: float | str | None = None
    max_latency_ms: float | str | None = None
    max_memory_mb: float | str | None = None


@dataclass(frozen=True)
class ServiceConfig:
    """Where the release runs, and what it owes its callers. All templated.

    Args:
        target: "host".
        root: folder of the host's services; None: the setting [model_deploy] host_root.
        host: the address to listen on.
        port: the port to listen on.
        latency_ms: a request's bound, kept by `latency_share` of them.
        window_s: how long monitoring watches.
    """

    target: str = "host"
    root: str | None = None
    host: str = "127.0.0.1"
    port: int | str = 8500
    latency_ms: float | str = 100.0
    latency_share: float | str = 0.95
    max_error_share: float | str = 0.01
    window_s: float | str = 10.0


@dataclass(frozen=True)
class RunConfig:
    """Where the steps run and keep what they make. All templated.

    Args:
        store: URL of the artifact store; None: the setting [model_deploy] store.
        python: interpreter with the engine; None: the setting [model_deploy] python, or Airflow's own.
    """

    store: str | None = None
    python: str | None = None
