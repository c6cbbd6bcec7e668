"""Torch models as artifacts: weights and factory, example inputs beside them, predictions in batches."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    Dataset,
    Surgery,
    UserFunction,
    dynamic_sizes,
    save_torch_model,
    with_other_size,
)

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
    dynamic: dict[str, dict[int, str]] | None = None,
) -> Signature:
    """Write a model and two example samples; returns its signature, taken from forward passes.

    Dimension 0 of every input and output is the batch. What `dynamic` names may vary too: input -> dimension ->
    name; which dimensions of the outputs vary with it is seen by another forward pass. The signature carries
    it on: pruning and export read it there.
    """
    from safetensors.numpy import save_file

    save_torch_model(model, folder, factory=factory.path, options=factory.options, surgery=surgery)
    example = {name: example[name][:_EXAMPLE_SAMPLES] for name in _in_order(model, list(example))}
    save_file(example, folder / EXAMPLE, metadata={"order": json.dumps(list(example))})
    dynamic = dynamic or {}
    sizes = dynamic_sizes(dynamic, example)
    outputs = predict(model, example)
    varying: dict[str, dict[int, str]] = {name: {} for name in outputs}
    for label in sizes:
        for name, other in _predict_other_size(model, example, dynamic, label).items():
            for place, (size, now) in enumerate(zip(outputs[name].shape, other.shape, strict=True)):
                if size != now:
                    varying[name][place] = label if size == sizes[label] else f"{name}_dim{place}"
    return Signature(
        inputs=tuple(_tensor(name, array, dynamic.get(name, {})) for name, array in example.items()),
        outputs=tuple(_tensor(name, array, varying[name]) for name, array in outputs.items()),
    )


def _in_order(model: nn.Module, names: list[str]) -> list[str]:
    """Order inputs as forward's arguments: that of a data loader's dict means nothing to a model."""
    try:
        known = list(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):  # a compiled forward has no signature
        return names
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def _predict_other_size(
    model: nn.Module, example: dict[str, np.ndarray], dynamic: dict[str, dict[int, str]], label: str
) -> dict[str, np.ndarray]:
    try:
        return predict(model, with_other_size(dynamic, example, label))
    except InputError as error:
        raise InputError(
            f"{type(model).__name__} can't take another size of {label!r}",
            found=str(error),
            wanted="a forward that runs, since `dynamic` says that this dimension varies",
            remedy="Take it out of `dynamic`, or take the fixed size out of forward.",
        ) from error


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
    """Call a model with inputs by name; where forward can't take them, their names, types and shapes are told."""
    try:
        return model(**feed)
    except (TypeError, RuntimeError, ValueError, IndexError) as error:
        given = ", ".join(
            f"{n}: {str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for n, t in feed.items()
        )
        raise InputError(
            f"{type(model).__name__}.forward can't be called with the data's inputs",
            found=f"{given}: {' '.join(str(error).split())[:400]}",
            wanted="inputs named as forward's arguments, of the types and shapes that it takes",
            remedy="Correct what the data loader returns (numpy's own floats are float64: .astype('float32')).",
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


def _tensor(name: str, array: np.ndarray, varying: dict[int, str]) -> TensorSpec:
    shape = ("batch", *(varying.get(place, size) for place, size in enumerate(array.shape[1:], 1)))
    return TensorSpec(name=name, shape=shape, dtype=str(array.dtype))
