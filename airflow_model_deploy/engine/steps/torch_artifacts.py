"""Torch models as artifacts: weights and factory, example inputs beside them, predictions in batches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Dataset, Surgery, UserFunction, save_torch_model

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

EXAMPLE = "example.safetensors"
_EXAMPLE_SAMPLES = 2
_BATCH = 256


def write_torch(
    folder: Path,
    model: nn.Module,
    *,
    factory: UserFunction,
    example: dict[str, np.ndarray],
    surgery: Surgery | None = None,
) -> Signature:
    """Write a model and two example samples; returns its signature, taken from a forward pass.

    Dimension 0 of every input and output is the batch.
    """
    from safetensors.numpy import save_file

    save_torch_model(model, folder, factory=factory.path, options=factory.options, surgery=surgery)
    example = {name: array[:_EXAMPLE_SAMPLES] for name, array in example.items()}
    save_file(example, folder / EXAMPLE, metadata={"order": json.dumps(list(example))})
    outputs = predict(model, example)
    return Signature(
        inputs=tuple(_tensor(name, array) for name, array in example.items()),
        outputs=tuple(_tensor(name, array) for name, array in outputs.items()),
    )


def read_example(folder: Path) -> dict[str, np.ndarray]:
    """Read the example inputs of a torch artifact in the order of the forward arguments."""
    from safetensors import safe_open

    with safe_open(str(folder / EXAMPLE), framework="numpy") as stream:
        order = json.loads(stream.metadata()["order"])
        return {name: stream.get_tensor(name) for name in order}


def predict(model: nn.Module, inputs: dict[str, np.ndarray], *, batch: int = _BATCH) -> dict[str, np.ndarray]:
    """Run a model without gradients, in batches; returns outputs by name (see `named_outputs`)."""
    import numpy as np
    import torch

    total = len(next(iter(inputs.values())))
    parts: list[dict[str, np.ndarray]] = []
    model.eval()
    with torch.no_grad():
        for start in range(0, total, batch):
            feed = {name: torch.from_numpy(array[start : start + batch]) for name, array in inputs.items()}
            parts.append({k: v.numpy() for k, v in named_outputs(call(model, feed)).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def call(model: nn.Module, feed: dict[str, Any]) -> Any:
    """Call a model with inputs by name; an input that its forward doesn't have is named."""
    try:
        return model(**feed)
    except TypeError as error:
        raise InputError(
            f"{type(model).__name__}.forward can't be called with the data's inputs",
            found=f"inputs {sorted(feed)}: {error}",
            wanted="inputs named as forward's arguments",
            remedy="Name the arrays that the data loader returns after forward's arguments.",
        ) from error


def named_outputs(value: Any) -> dict[str, Any]:
    """Name a model's outputs: a dict's own names, "output" for one tensor, "output_0", "output_1"… for several."""
    import torch

    if isinstance(value, torch.Tensor):
        return {"output": value}
    if hasattr(value, "items"):
        named = dict(value.items())
    elif isinstance(value, (tuple, list)):
        named = {f"output_{place}": item for place, item in enumerate(value)}
    else:
        named = {}
    if not named or not all(isinstance(item, torch.Tensor) for item in named.values()):
        raise InputError(
            "the model returns something that can't be served",
            found=type(value).__name__,
            wanted="a tensor, or a tuple or dict of tensors",
            remedy="Wrap the model so that its forward returns tensors only.",
        )
    return named


def data_for(dataset: Dataset, signature: Signature) -> dict[str, np.ndarray]:
    """Return a dataset's inputs in the order and the types of a signature."""
    wanted = {tensor.name: tensor.dtype for tensor in signature.inputs}
    if set(wanted) != set(dataset.inputs):
        raise InputError(
            "the data's inputs are not the model's",
            found=sorted(dataset.inputs),
            wanted=sorted(wanted),
            remedy="Name the arrays that the data loader returns after the model's inputs.",
        )
    return {name: dataset.inputs[name].astype(dtype, copy=False) for name, dtype in wanted.items()}


def _tensor(name: str, array: np.ndarray) -> TensorSpec:
    return TensorSpec(name=name, shape=("batch", *array.shape[1:]), dtype=str(array.dtype))
