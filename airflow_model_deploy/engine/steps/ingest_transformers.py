"""Take in the folder of a transformers model: safetensors only, and no code but the library's own."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    DataSource,
    load_data,
    load_transformers,
    read_transformers_folder,
    token_inputs,
)
from airflow_model_deploy.engine.steps.quality import torch_quality
from airflow_model_deploy.engine.steps.torch_artifacts import write_torch

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from airflow_model_deploy.engine.artifacts import Signature
    from airflow_model_deploy.engine.steps.base import StepContext

logger = logging.getLogger(__name__)

TOKENIZER = "tokenizer"


def take_transformers(
    spec: Any, path: Path, folder: Path, context: StepContext
) -> tuple[Signature, dict[str, object]]:
    """Write a transformers folder as a torch model; returns its signature and what was measured.

    Its factory is this package's, and its options hold the config, so that the folder is not needed again. The
    tokenizer's files lie beside it, in `tokenizer`: for clients; no server reads them.
    """
    if spec.factory is not None:
        raise InputError(
            f"the folder {spec.source} is a transformers model",
            found=f"a factory, {spec.factory.path}",
            wanted="none: the config in the folder says what to build",
            remedy="Leave out the factory, or give the weights' file alone.",
        )
    found = read_transformers_folder(path)
    model, factory = load_transformers(found, spec.task)
    logger.info("%s: %s", spec.source, factory.options["architecture"])
    example = token_inputs(found.config) if spec.data is None else _tokens(spec.data, context)
    signature = write_torch(
        folder,
        model,
        factory=factory,
        example=example,
        dynamic=spec.dynamic or {name: {1: "sequence"} for name in example},
    )
    for name, file in found.tokenizer.items():
        (folder / TOKENIZER).mkdir(exist_ok=True)
        shutil.copyfile(file, folder / TOKENIZER / name)
    quality = torch_quality(model, spec.data, spec.metric, context.resolve, original="itself")
    return signature, {**quality, "architecture": factory.options["architecture"]}


def _tokens(data: DataSource, context: StepContext) -> dict[str, np.ndarray]:
    """Return the author's own test inputs as token numbers."""
    inputs = load_data(data, "test", context.resolve).inputs
    strange = [name for name, array in inputs.items() if array.ndim != 2 or array.dtype.kind not in "iu"]
    if strange or not {"input_ids", "attention_mask"} <= set(inputs):
        raise InputError(
            "the data's inputs for a transformers model",
            found=", ".join(f"{name}: {array.dtype} {list(array.shape)}" for name, array in inputs.items()),
            wanted="input_ids and attention_mask, integers [samples, sequence]",
            remedy="Return from the loader what the tokenizer gives, with return_tensors='np'.",
        )
    return {name: array.astype("int64") for name, array in inputs.items()}
