"""Reads and writes state dicts as files; never runs code that a file brings along."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_WANTED = (
    "a state dict in safetensors, or in a .pt or .pth file written by torch.save(model.state_dict(), ...)"
)
_REMEDY = "Save it again with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU. `.safetensors`, or `.pt`/`.pth` that hold a plain state dict."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"weights {path}", found="no such file", wanted=_WANTED, remedy="Give the path of a weights file."
        )
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if path.suffix in (".pt", ".pth"):
        return _load_torch(path)
    raise InputError(
        f"weights {path}", found=f"a file ending in {path.suffix!r}", wanted=_WANTED, remedy=_REMEDY
    )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        found = f"{path.stat().st_size} bytes that are no safetensors ({error})"
        raise InputError(
            f"weights {path}", found=found, wanted="a complete safetensors file", remedy=_REMEDY
        ) from error
    return tensors


def _load_torch(path: Path) -> dict[str, Tensor]:
    import struct
    from pickle import UnpicklingError  # the error alone; nothing is unpickled with it

    import torch

    # What torch's restricted reader raises on damaged or hostile bytes; it has no common base.
    reading_errors = (
        UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError,
        struct.error,
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True)
    except reading_errors as error:
        raise InputError(
            f"weights {path}",
            found=f"a file that holds more than tensors, or is damaged ({_first_line(error)})",
            wanted=_WANTED,
            remedy=_REMEDY,
        ) from error
    if not isinstance(value, dict) or not value:
        raise InputError(f"weights {path}", found=type(value).__name__, wanted=_WANTED, remedy=_REMEDY)
    strangers = [str(k) for k, v in value.items() if not (isinstance(k, str) and isinstance(v, torch.Tensor))]
    if strangers:
        raise InputError(
            f"weights {path}",
            found=f"a dict whose {', '.join(strangers[:3])} ({len(strangers)} of {len(value)}) is no tensor",
            wanted=_WANTED,
            remedy="Save the inner state dict alone.",
        )
    return {name: tensor.detach() for name, tensor in value.items()}


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:160] if text else type(error).__name__


def write_weights(state: dict[str, Any], path: Path) -> dict[str, str]:
    """Write a state dict as safetensors, each tied tensor once.

    Returns:
        name left out -> name of the same tensor in the file.
    """
    import torch
    from safetensors.torch import save_file

    strangers = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise InputError(
            f"state dict entry {strangers[0]}",
            found=type(state[strangers[0]]).__name__,
            wanted="tensors only",
            remedy="Register what the model needs as buffers instead of extra state.",
        )
    first: dict[tuple[Any, ...], str] = {}
    tied: dict[str, str] = {}
    kept: dict[str, Tensor] = {}
    for name in sorted(state):
        tensor = state[name]
        if tensor.is_meta:
            raise InputError(f"tensor {name}", found="no data (meta device)", wanted="loaded weights")
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and key in first:
            tied[name] = first[key]
            continue
        first[key] = name
        # A clone: views that overlap without being equal may not share storage in safetensors.
        kept[name] = tensor.detach().to("cpu", copy=True).contiguous()
    save_file(kept, path)
    return tied
