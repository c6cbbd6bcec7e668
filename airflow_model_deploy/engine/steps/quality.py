"""The quality of a model by the user's metric on the test split."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation import resolve_metric
from airflow_model_deploy.engine.models import (
    Dataset,
    DataSource,
    SessionSettings,
    UserFunction,
    create_session,
    load_data,
    read_signature,
    run,
)
from airflow_model_deploy.engine.steps.torch_artifacts import data_for, predict

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

    from airflow_model_deploy.engine.models.data import Resolve

_BATCH = 64


def torch_quality(
    model: nn.Module, source: DataSource | None, metric: str | UserFunction, resolve: Resolve
) -> dict[str, Any]:
    """Return {"metric", "quality", "higher_is_better", "samples", "parameters"} of a torch model.

    Without data or targets only "parameters".
    """
    parameters = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    if source is None:
        return parameters
    data = load_data(source, "test", resolve)
    return {**score(predict(model, data.inputs), data, metric, resolve), **parameters}


def onnx_quality(
    path: Path,
    source: DataSource | None,
    metric: str | UserFunction,
    resolve: Resolve,
    settings: SessionSettings | None = None,
) -> dict[str, Any]:
    """Return {"metric", "quality", "higher_is_better", "samples"} of an ONNX file; {} without data."""
    if source is None:
        return {}
    data = load_data(source, "test", resolve)
    feed = data_for(data, read_signature(path))
    return score(run(create_session(path, settings), feed, batch_size=_BATCH), data, metric, resolve)


def score(
    outputs: dict[str, np.ndarray], data: Dataset, metric: str | UserFunction, resolve: Resolve
) -> dict[str, Any]:
    """Apply a metric to outputs; {} where the data has no targets."""
    if data.targets is None:
        return {}
    found = resolve_metric(metric if isinstance(metric, str) else resolve(metric.path))
    options = {} if isinstance(metric, str) else metric.options
    value = found(outputs, data.targets, **options)
    if not math.isfinite(value):
        raise InputError(
            f"the metric {found.name} gave no number",
            found=value,
            wanted="a finite float",
            remedy="Check the metric, and the test data for NaN.",
        )
    return {
        "metric": found.name,
        "quality": value,
        "higher_is_better": found.higher_is_better,
        "samples": len(data),
    }
