"""Take a trained model to production: compression, gates, packaging, rollout and monitoring as Airflow operators.

The public names load when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_model_deploy.config import (
        Budget,
        CompressionConfig,
        ContainerConfig,
        DataSource,
        DistillationConfig,
        DockerConfig,
        GateConfig,
        ImageConfig,
        KubernetesConfig,
        ModelCode,
        PodConfig,
        RolloutConfig,
        RunConfig,
        ServiceConfig,
        UserFunction,
    )
    from airflow_model_deploy.operators.autocompress import AutoCompressModelOperator
    from airflow_model_deploy.operators.build import BuildModelOperator
    from airflow_model_deploy.operators.build_image import BuildImageOperator
    from airflow_model_deploy.operators.compress import CompressModelOperator
    from airflow_model_deploy.operators.distill import DistillModelOperator
    from airflow_model_deploy.operators.evaluate import EvaluateModelOperator
    from airflow_model_deploy.operators.ingest import IngestModelOperator
    from airflow_model_deploy.operators.monitor import MonitorReleaseOperator
    from airflow_model_deploy.operators.optimize import OptimizeModelOperator
    from airflow_model_deploy.operators.prepare import PrepareReleaseOperator
    from airflow_model_deploy.operators.prune import PruneModelOperator
    from airflow_model_deploy.operators.quantize import QuantizeModelOperator
    from airflow_model_deploy.operators.rollback import RollbackOperator
    from airflow_model_deploy.operators.rollout import RolloutOperator
    from airflow_model_deploy.operators.train import TrainModelOperator
    from airflow_model_deploy.pipeline import model_deploy_pipeline
    from airflow_model_deploy.sensors.model_service import ModelServiceSensor

__version__ = "0.1.0"

__all__ = [
    "AutoCompressModelOperator",
    "Budget",
    "BuildImageOperator",
    "BuildModelOperator",
    "CompressModelOperator",
    "CompressionConfig",
    "ContainerConfig",
    "DataSource",
    "DistillModelOperator",
    "DistillationConfig",
    "DockerConfig",
    "EvaluateModelOperator",
    "GateConfig",
    "ImageConfig",
    "IngestModelOperator",
    "KubernetesConfig",
    "ModelCode",
    "ModelServiceSensor",
    "MonitorReleaseOperator",
    "OptimizeModelOperator",
    "PodConfig",
    "PrepareReleaseOperator",
    "PruneModelOperator",
    "QuantizeModelOperator",
    "RollbackOperator",
    "RolloutConfig",
    "RolloutOperator",
    "RunConfig",
    "ServiceConfig",
    "TrainModelOperator",
    "UserFunction",
    "model_deploy_pipeline",
]

_HOMES = {
    "AutoCompressModelOperator": "operators.autocompress",
    "Budget": "config",
    "BuildImageOperator": "operators.build_image",
    "BuildModelOperator": "operators.build",
    "CompressModelOperator": "operators.compress",
    "CompressionConfig": "config",
    "ContainerConfig": "config",
    "DataSource": "config",
    "DistillModelOperator": "operators.distill",
    "DistillationConfig": "config",
    "DockerConfig": "config",
    "EvaluateModelOperator": "operators.evaluate",
    "GateConfig": "config",
    "ImageConfig": "config",
    "IngestModelOperator": "operators.ingest",
    "KubernetesConfig": "config",
    "ModelCode": "config",
    "ModelServiceSensor": "sensors.model_service",
    "MonitorReleaseOperator": "operators.monitor",
    "OptimizeModelOperator": "operators.optimize",
    "PodConfig": "config",
    "PrepareReleaseOperator": "operators.prepare",
    "PruneModelOperator": "operators.prune",
    "QuantizeModelOperator": "operators.quantize",
    "RollbackOperator": "operators.rollback",
    "RolloutConfig": "config",
    "RolloutOperator": "operators.rollout",
    "RunConfig": "config",
    "ServiceConfig": "config",
    "TrainModelOperator": "operators.train",
    "UserFunction": "config",
    "model_deploy_pipeline": "pipeline",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
