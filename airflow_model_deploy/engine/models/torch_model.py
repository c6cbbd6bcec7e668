"""A torch model as a folder: weights, the factory that builds it, and what was cut out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.json_file import read_json, write_json
from airflow_model_deploy.engine.models.surgery import SURGERY_FILE, Surgery
from airflow_model_deploy.engine.models.usercode import UserFunction
from airflow_model_deploy.engine.models.weights import load_weights, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.json"


def save_torch_model(
    model: nn.Module,
    folder: str | Path,
    *,
    factory: str,
    options: dict[str, Any],
    surgery: Surgery | None = None,
) -> None:
    """Write `weights.safetensors`, `model.json` and, where structure was pruned, `surgery.json`.

    Args:
        model: the model, with `surgery` already applied.
        folder: created where it doesn't exist; the files in it are replaced.
        factory: "package.module:callable" that builds the unpruned model.
        options: JSON keyword arguments of the factory.
        surgery: the cuts from the factory's model to `model`.
    """
    module, _, name = factory.partition(":")
    if not module or not name:
        raise InputError("factory", found=factory, wanted="package.module:callable")
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError("factory options", found=str(error), wanted="JSON values") from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tied = write_weights(model.state_dict(), folder / WEIGHTS_FILE)
    description: dict[str, Any] = {"schema_version": 1, "factory": factory, "options": options}
    if tied:  # each tied tensor is stored once; this says under which other names it is wanted
        description["tied"] = tied
    write_json(folder / MODEL_FILE, description)
    (folder / SURGERY_FILE).unlink(missing_ok=True)
    if surgery is not None and surgery.cuts:
        write_json(folder / SURGERY_FILE, surgery.to_json())


def load_torch_model(folder: str | Path, resolve: Callable[[str], Callable[..., nn.Module]]) -> nn.Module:
    """Build, cut and load the model of a folder; returned in eval mode.

    Args:
        folder: as written by `save_torch_model`.
        resolve: turns the factory's import path into the factory; decides what may be imported.
    """
    folder = Path(folder)
    description = read_model_description(folder)
    model = build_model(resolve(description["factory"]), description["options"], description["factory"])
    surgery = Surgery.read(folder)
    if surgery is not None:
        surgery.apply(model)
    weights = load_weights(folder / WEIGHTS_FILE)
    for name, kept in description.get("tied", {}).items():
        if kept in weights:
            weights.setdefault(name, weights[kept])
    fill_model(model, weights, source=str(folder / WEIGHTS_FILE))
    return model.eval()


def read_model_description(folder: str | Path) -> dict[str, Any]:
    """The content of model.json: schema_version, factory, options."""
    value = read_json(Path(folder) / MODEL_FILE)
    if value.get("schema_version") != 1:
        raise InputError(
            f"{folder}/{MODEL_FILE}",
            found=f"schema_version {value.get('schema_version')}",
            wanted="schema_version 1",
        )
    if not isinstance(value.get("factory"), str) or not isinstance(value.get("options"), dict):
        raise InputError(
            f"{folder}/{MODEL_FILE}", found=sorted(value), wanted="factory (a string) and options (an object)"
        )
    return value


def read_factory(folder: str | Path) -> UserFunction:
    """The factory of a model folder, with its options."""
    value = read_model_description(folder)
    return UserFunction(path=value["factory"], options=value["options"])


def build_model(factory: Callable[..., nn.Module], options: dict[str, Any], name: str) -> nn.Module:
    """Call a factory and check that a torch module came out."""
    from torch import nn

    try:
        model = factory(**options)
    except TypeError as error:
        raise InputError(
            f"factory {name}",
            found=f"{error} with options {sorted(options)}",
            wanted="a call that succeeds",
            remedy="Give the options that the factory takes.",
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"factory {name}",
            found=type(model).__name__,
            wanted="a torch.nn.Module",
            remedy="Return the model from the factory.",
        )
    return model


def fill_model(model: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Strict load_state_dict that says what does not fit.

    A name may be missing when the model ties it to one that is there; values may widen (float16 into
    float32) but never narrow.
    """
    state = model.state_dict()
    present = {_place(state[name]) for name in weights if name in state}
    missing = [n for n in state if n not in weights and _place(state[n]) not in present]
    unexpected = [n for n in weights if n not in state]
    shapes = [
        f"{n} {tuple(weights[n].shape)} for {tuple(state[n].shape)}"
        for n in state
        if n in weights and weights[n].shape != state[n].shape
    ]
    narrowing = [n for n in state if n in weights and not _widens(weights[n], state[n])]
    problems = [
        f"{len(names)} {label} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for label, names in (
            ("missing", missing), ("unexpected", unexpected),
            ("with another shape", shapes), ("of a wider type than the model", narrowing),
        )
        if names
    ]  # fmt: skip
    if problems:
        raise InputError(
            f"weights {source}",
            found="; ".join(problems),
            wanted=f"the {len(state)} tensors of the factory's {type(model).__name__}",
            remedy="Give the weights that belong to this factory and its options.",
        )
    model.load_state_dict(weights, strict=False)  # only tied names can be missing here


def _place(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())


def _widens(found: Tensor, wanted: Tensor) -> bool:
    import torch

    return torch.promote_types(found.dtype, wanted.dtype) == wanted.dtype
