"""The original: the model that others were made from, and its answers, which metrics of fidelity compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.models import create_session, read_signature, run
from airflow_model_deploy.engine.steps.export import MODEL
from airflow_model_deploy.engine.steps.torch_artifacts import data_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from airflow_model_deploy.engine.artifacts import Reference
    from airflow_model_deploy.engine.models import Dataset
    from airflow_model_deploy.engine.steps.base import Input, StepContext

    Outputs = dict[str, np.ndarray]
    Original = Callable[[Dataset], Outputs]

_BATCH = 64


def original_of(source: Input, context: StepContext) -> Original:
    """Return the answers, once asked for, of the model that a step's input goes back to: trained or taken in.

    It answers through its fp32 export, which is shared with the later steps.
    """

    def answers(data: Dataset) -> Outputs:
        first = _first(source.reference, context)
        if context.store.manifest(first).description.format != "onnx":
            result = context.run("export", {}, {"model": first})
            if result.artifact is None:
                raise TypeError("the export step published no artifact")
            first = result.artifact
        folder, _ = context.store.fetch(first, context.scratch)
        return onnx_answers(folder / MODEL, data)

    return answers


def onnx_answers(path: Path, data: Dataset) -> Outputs:
    """Return an ONNX file's outputs for a dataset."""
    return run(create_session(path), data_for(data, read_signature(path)), batch_size=_BATCH)


def _first(reference: Reference, context: StepContext) -> Reference:
    while parent := context.store.manifest(reference).description.parents.get("model"):
        reference = context.store.reference(parent)
    return reference
