"""Keeps the state of a long computation, so that a retry goes on where a killed attempt stopped.

One safetensors file a state: its tensors, and in its metadata the rest as JSON. No pickle. What a damaged one held is
lost, and the computation starts over; nothing else depends on it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError, ModelDeployError

if TYPE_CHECKING:
    from torch import Tensor

    from airflow_model_deploy.engine.artifacts.store import Store

logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_PAUSE = 10.0  # times what the last save took: so much is computed before the next
_TENSOR, _ARRAY, _TUPLE, _DICT = "tensor", "array", "tuple", "dict"


class Checkpoint:
    """The state of one computation, below `checkpoints/` of a store.

    Args:
        store: where it is kept; None: nowhere, so that nothing is found and nothing kept.
        place: the folder below `checkpoints/`, one for each step and key: "train/3f9a…".
        part: which of the computations of that step; see `part`.
        scratch: a folder for files under way; they go with it.
    """

    def __init__(
        self,
        store: Store | None = None,
        place: str | None = None,
        part: str = "state",
        scratch: Path | None = None,
    ) -> None:
        self._store, self._place, self._part, self._scratch = store, place, part, scratch
        self._next = 0.0
        self.found = False

    def part(self, name: str) -> Checkpoint:
        """Return that of another computation of the same step, such as its second round."""
        return Checkpoint(self._store, self._place, name, self._scratch)

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last, or None where nothing was, or nothing whole; `found` then says which."""
        if self._store is None or self._place is None:
            return None
        try:
            with tempfile.TemporaryDirectory(dir=self._scratch, prefix="checkpoint-") as scratch:
                path = self._store.local_file(self._name, Path(scratch))
                state = None if path is None else _read(path)
        except (ModelDeployError, OSError, ValueError, LookupError, TypeError) as error:
            logger.warning("starting over: the checkpoint %s can't be used: %s", self._name, error)
            return None
        self.found = state is not None
        return state

    def save(self, state: dict[str, Any], *, now: bool = False) -> None:
        """Replace what was saved: all of it or, where the process dies meanwhile, nothing.

        A call soon after the last save does nothing, so that saving takes a tenth of the time at most. Where the store
        can't be written, a warning says so and the computation goes on.

        Args:
            state: dicts, lists and tuples of tensors, arrays, numbers, strings and None: state dicts as they are.
            now: save in any case.
        """
        if self._store is None or self._place is None or (time.monotonic() < self._next and not now):
            return
        import safetensors.torch  # noqa: F401 - here, so that its import is not taken for the time of a save

        start = time.monotonic()
        tensors: dict[str, Tensor] = {}
        tree = _split(state, tensors, "state")
        try:
            with tempfile.TemporaryDirectory(dir=self._scratch, prefix="checkpoint-") as scratch:
                path = Path(scratch) / "state.safetensors"
                _write(path, tree, tensors)
                self._store.write_file(self._name, path)
        except (ModelDeployError, OSError) as error:
            logger.warning("the checkpoint %s was not kept: %s", self._name, error)
        end = time.monotonic()
        self._next = end + _PAUSE * (end - start)

    def remove(self) -> None:
        """Forget this and every other part of the same step and key."""
        if self._store is not None and self._place is not None:
            with suppress(ModelDeployError):  # it is of no more use, and no harm either
                self._store.remove(f"checkpoints/{self._place}")

    @property
    def _name(self) -> str:
        return f"checkpoints/{self._place}/{self._part}.safetensors"


def _write(path: Path, tree: Any, tensors: dict[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    text = json.dumps({"schema_version": _SCHEMA_VERSION, "state": tree})
    try:
        save_file(tensors, path, metadata={"state": text, "sha256": _digest(text, tensors)})
    except SafetensorError as error:  # a full disk, which has no errno here
        raise OSError(str(error)) from error


def _read(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stream:
            metadata = stream.metadata() or {}
            # Clones: the file may be replaced or removed while its content is in use.
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if metadata.get("sha256") != _digest(metadata["state"], tensors):
        raise ValueError("its content is not what was saved")
    value = json.loads(metadata["state"])
    if value["schema_version"] != _SCHEMA_VERSION:
        raise ValueError(f"it has schema version {value['schema_version']}")
    state = _joined(value["state"], tensors)
    if not isinstance(state, dict):
        raise TypeError(f"it holds a {type(state).__name__}")
    return state


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    import torch

    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        if tensor.numel():
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _split(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """Return a value as JSON, its tensors by number in `tensors`; what JSON can't tell apart is tagged."""
    import numpy as np
    import torch

    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.Tensor, np.ndarray)):
        number = str(len(tensors))
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value.detach()
        tensors[number] = tensor.to("cpu", copy=True).contiguous()
        return {_TENSOR if isinstance(value, torch.Tensor) else _ARRAY: number}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):  # as pairs: the keys of an optimizer's state are numbers
        return {_DICT: [[_key(k, where), _split(v, tensors, f"{where}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_split(item, tensors, f"{where}[{place}]") for place, item in enumerate(value)]
        return items if isinstance(value, list) else {_TUPLE: items}
    raise InputError(
        f"{where} can't be kept in a checkpoint",
        found=type(value).__name__,
        wanted="dicts, lists and tuples of tensors, arrays, numbers, strings and None",
        remedy="Save state dicts, not the objects themselves.",
    )


def _key(key: Any, where: str) -> str | int:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return key
    raise InputError(
        f"a key of {where} can't be kept in a checkpoint", found=repr(key), wanted="a str or an int"
    )


def _joined(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_joined(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == _TENSOR:
        return tensors[content]
    if tag == _ARRAY:
        return tensors[content].numpy()
    if tag == _TUPLE:
        return tuple(_joined(item, tensors) for item in content)
    return {key: _joined(item, tensors) for key, item in content}
