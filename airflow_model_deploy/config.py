"""What an author of a Dag says, in a few frozen objects. Values marked templated may hold Jinja templates."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    An ONNX file needs no factory. Without data nothing is trained, pruned with recovery or quantized statically,
    and no quality is measured; golden requests are then random inputs by the model's signature.

    Args:
        factory: returns the torch.nn.Module.
        data: split "train" trains, recovers and calibrates; split "test" measures and guards.
        fit: trains a module in place; also recovers it after pruning.
        metric: "accuracy", "mae", "rmse", each with ":<output>" behind it where the model has several outputs, or a
            function metric(outputs, targets) -> float; its attribute higher_is_better = False says that less is
            better.
        dynamic: what may vary besides the batch: input -> dimension -> its name, e.g. {"tokens": {1: "sequence"}}
            for texts of any length; the same name is the same size. An ONNX file says so itself.
    """

    factory: UserFunction | None = None
    data: DataSource | None = None
    fit: UserFunction | None = None
    metric: str | UserFunction = "accuracy"
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)


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
            unit otherwise. Without data no quality is measured: set it to None.
        max_drop_from_champion: how much worse than the champion, where the test is given one; counted likewise.
        min_quality: the metric's own bound.
        min_size_ratio: fp32 ONNX bytes over the servable's model bytes.
        min_speedup: throughput at batch 64 on one thread over that of the fp32 ONNX export.
        max_latency_ms: median of single requests to the real server.
        max_memory_mb: peak memory of the real server.
    """

    max_quality_drop: float | str | None = 1.0
    max_drop_from_champion: float | str | None = 1.0
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
        threads: threads to train and to recover with; None: 1. Another number may give other bits.
    """

    store: str | None = None
    python: str | None = None
    threads: int | str | None = None
