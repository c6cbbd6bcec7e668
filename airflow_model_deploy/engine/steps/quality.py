"""The quality of a model by the user's metric on the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.evaluation import (
    Metric,
    evaluate,
    quality_interval,
    resolve_metric,
    wanted_by,
)
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
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from torch import nn

    from airflow_model_deploy.engine.models.data import Resolve

    Outputs = dict[str, np.ndarray]
    # What gives the original model's outputs for some data; "itself" where the model is the original.
    Original = Callable[[Dataset], Outputs] | Literal["itself"]

_BATCH = 64


def torch_quality(
    model: nn.Module,
    source: DataSource | None,
    metric: str | UserFunction,
    resolve: Resolve,
    *,
    original: Original | None = None,
) -> dict[str, Any]:
    """Return {"metric", "quality", "quality_ci", "higher_is_better", "samples", "parameters"} of a torch model.

    Without data or targets only "parameters"; without `original` no "quality" by a metric that compares with it.
    """
    parameters = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    if source is None:
        return parameters
    data = load_data(source, "test", resolve)
    outputs = predict(model, data.inputs)
    return {
        **score(outputs, data, metric, resolve, original=_answers(original, outputs, data)),
        **parameters,
    }


def onnx_quality(
    path: Path,
    source: DataSource | None,
    metric: str | UserFunction,
    resolve: Resolve,
    settings: SessionSettings | None = None,
    *,
    original: Original | None = None,
) -> dict[str, Any]:
    """Return {"metric", "quality", "quality_ci", "higher_is_better", "samples"} of an ONNX file; {} without data."""
    if source is None:
        return {}
    data = load_data(source, "test", resolve)
    feed = data_for(data, read_signature(path))
    outputs = run(create_session(path, settings), feed, batch_size=_BATCH)
    return score(outputs, data, metric, resolve, original=_answers(original, outputs, data))


def score(
    outputs: Outputs,
    data: Dataset,
    metric: str | UserFunction,
    resolve: Resolve,
    *,
    original: Outputs | Callable[[], Outputs] | None = None,
) -> dict[str, Any]:
    """Apply a metric to outputs; {} where the data has no targets that it needs.

    Without the original's outputs, a metric that compares with them is named, but has no "quality".
    """
    found, options = named_metric(metric, resolve)
    if found.against == "targets" and data.targets is None:
        return {}
    told = {"metric": found.name, "higher_is_better": found.higher_is_better, "samples": len(data)}
    if found.against == "original":
        if original is None:
            return told
        original = original() if callable(original) else original
    else:
        original = None
    wanted = wanted_by(found, data.targets, original)
    value = evaluate(outputs, metric=found, targets=data.targets, reference=original, **options)
    interval = quality_interval(found, outputs, wanted, **options)
    return {**told, "quality": value, **({"quality_ci": list(interval)} if interval else {})}


def named_metric(metric: str | UserFunction, resolve: Resolve) -> tuple[Metric, dict[str, Any]]:
    """Return a spec's metric, and the options that a user's function is called with."""
    if isinstance(metric, str):
        return resolve_metric(metric), {}
    return resolve_metric(resolve(metric.path)), metric.options


def _answers(
    original: Original | None, outputs: Outputs, data: Dataset
) -> Outputs | Callable[[], Outputs] | None:
    if original is None:
        return None
    return outputs if original == "itself" else lambda: original(data)
