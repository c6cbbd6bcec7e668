"""Knows how to cut channels out of layers by recorded indices; not how the indices were chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.json_file import read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

SURGERY_FILE = "surgery.json"
Dimension = Literal["out", "in"]


@dataclass(frozen=True)
class Cut:
    """One dimension of one module, and what stays of it.

    Args:
        module: the module's name, as in `model.named_modules()`.
        dimension: "out" (output channels; also the one dimension of a norm or depthwise layer) or "in".
        kept: ascending indices, in the coordinates of the uncut module.
    """

    module: str
    dimension: Dimension
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        name = f"cut of {self.module}.{self.dimension}"
        if self.dimension not in ("out", "in"):
            raise InputError(name, found=self.dimension, wanted="out or in")
        if not self.kept or any(b <= a for a, b in zip(self.kept, self.kept[1:], strict=False)):
            raise InputError(
                name, found=f"{len(self.kept)} indices", wanted="at least one, strictly ascending"
            )


@dataclass(frozen=True)
class Surgery:
    """Every cut that turns the factory's model into the pruned one."""

    cuts: tuple[Cut, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        cuts = [{"module": c.module, "dimension": c.dimension, "kept": list(c.kept)} for c in self.cuts]
        return {"schema_version": 1, "cuts": cuts}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Surgery:
        """The inverse of `to_json`."""
        try:
            if value["schema_version"] != 1:
                raise InputError("surgery.json's schema_version", found=value["schema_version"], wanted=1)
            cuts = [Cut(c["module"], c["dimension"], tuple(map(int, c["kept"]))) for c in value["cuts"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "surgery.json",
                found=f"{type(error).__name__}: {error}",
                wanted="cuts of module, dimension, kept",
            ) from error
        return cls(tuple(cuts))

    @classmethod
    def read(cls, folder: str | Path) -> Surgery | None:
        """The cuts of a model folder; None where its structure is the factory's own."""
        path = Path(folder) / SURGERY_FILE
        return cls.from_json(read_json(path)) if path.exists() else None

    def then(self, later: Surgery) -> Surgery:
        """One surgery that does this one and then `later`, whose indices count in the pruned model."""
        kept = {(c.module, c.dimension): c.kept for c in self.cuts}
        for cut in later.cuts:
            before = kept.get((cut.module, cut.dimension))
            if before is not None and cut.kept[-1] >= len(before):
                raise InputError(
                    f"cut of {cut.module}.{cut.dimension}",
                    found=f"index {cut.kept[-1]}",
                    wanted=f"< {len(before)}",
                )
            kept[(cut.module, cut.dimension)] = (
                cut.kept if before is None else tuple(before[i] for i in cut.kept)
            )
        return Surgery(tuple(Cut(m, d, k) for (m, d), k in kept.items()))

    def apply(self, model: nn.Module) -> nn.Module:
        """Cut `model` in place and return it; its values stay, its shapes shrink."""
        modules = dict(model.named_modules())
        for cut in self.cuts:
            if cut.module not in modules:
                raise InputError(
                    f"surgery of {cut.module}",
                    found="no such module in the factory's model",
                    wanted="the model that was pruned",
                    remedy="Use the factory and the options that the model was pruned with.",
                )
            _cut_module(modules[cut.module], cut)
        return model


def width(module: nn.Module, dimension: Dimension) -> int | None:
    """How many indices a dimension of this module has; None where Surgery cannot cut such a module."""
    from torch import nn

    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return module.out_channels if dimension == "out" else module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features if dimension == "out" else module.in_features
    if is_transposed_linear(module):
        return int(module.nf if dimension == "out" else module.nx)  # type: ignore[arg-type]
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return module.num_features if dimension == "out" else None
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return module.normalized_shape[0] if dimension == "out" else None
    return None


def is_transposed_linear(module: nn.Module) -> bool:
    """True for the `Conv1D` of GPT models in transformers: a linear layer that keeps its weight as [in, out]."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and hasattr(module, "nx")


def is_depthwise(module: nn.Module) -> bool:
    """True for a convolution with one filter a channel: its two dimensions are one."""
    from torch import nn

    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        return False
    return module.groups > 1 and module.groups == module.in_channels == module.out_channels


def _cut_module(module: nn.Module, cut: Cut) -> None:
    from torch import nn

    size = width(module, cut.dimension)
    name = f"surgery of {cut.module}.{cut.dimension}"
    if size is None:
        raise InputError(
            name,
            found=type(module).__name__,
            wanted="Conv1d, Conv2d, Linear, BatchNorm or one-dimensional LayerNorm",
        )
    if cut.kept[0] < 0 or cut.kept[-1] >= size:
        raise InputError(name, found=f"indices {cut.kept[0]}..{cut.kept[-1]}", wanted=f"0..{size - 1}")
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        _cut_convolution(module, cut, name)
    elif isinstance(module, nn.Linear):
        _cut_linear(module, cut, ("out_features", "in_features"))
    elif is_transposed_linear(module):
        _cut_linear(module, cut, ("nf", "nx"))
    else:
        for field in ("weight", "bias", "running_mean", "running_var"):
            _slice(module, field, cut.kept, 0)
        if isinstance(module, nn.LayerNorm):
            module.normalized_shape = (len(cut.kept),)
        else:
            cast("nn.BatchNorm2d", module).num_features = len(cut.kept)


def _cut_linear(module: nn.Module, cut: Cut, sizes: tuple[str, str]) -> None:
    """Cut a weight [out, in], or [in, out] where the layer keeps it so."""
    is_out = cut.dimension == "out"
    _slice(module, "weight", cut.kept, 0 if is_out != is_transposed_linear(module) else 1)
    if is_out:
        _slice(module, "bias", cut.kept, 0)
    setattr(module, sizes[0 if is_out else 1], len(cut.kept))


def _cut_convolution(module: nn.Conv1d | nn.Conv2d, cut: Cut, name: str) -> None:
    if is_depthwise(module):
        _slice(module, "weight", cut.kept, 0)
        _slice(module, "bias", cut.kept, 0)
        module.in_channels = module.out_channels = module.groups = len(cut.kept)
        return
    blocks = _blocks(cut.kept, width(module, cut.dimension) or 0, module.groups, name)
    if cut.dimension == "out":
        _slice(module, "weight", cut.kept, 0)
        _slice(module, "bias", cut.kept, 0)
        module.out_channels = len(cut.kept)
        return
    # Each group of filters sees its own block of inputs, so each block keeps its own positions.
    import torch

    rows = module.weight.detach().chunk(module.groups, 0)
    cut_rows = [_select(part, positions, 1) for part, positions in zip(rows, blocks, strict=True)]
    _replace(module, "weight", torch.cat(cut_rows, 0))
    module.in_channels = len(cut.kept)


def _blocks(kept: Sequence[int], size: int, groups: int, name: str) -> list[list[int]]:
    """Kept positions within each of `groups` equal blocks; every block must keep as many."""
    block = size // groups
    positions: list[list[int]] = [[] for _ in range(groups)]
    for index in kept:
        positions[index // block].append(index % block)
    counts = {len(p) for p in positions}
    if len(counts) != 1:
        raise InputError(
            name,
            found=f"{sorted(counts)} channels kept in the groups",
            wanted=f"as many in each of {groups} groups",
        )
    return positions


def _select(tensor: torch.Tensor, kept: Sequence[int], dim: int) -> torch.Tensor:
    import torch

    return tensor.index_select(dim, torch.tensor(kept, dtype=torch.long, device=tensor.device)).contiguous()


def _slice(module: nn.Module, field: str, kept: Sequence[int], dim: int) -> None:
    tensor = getattr(module, field, None)
    if tensor is not None:
        _replace(module, field, _select(tensor.detach(), kept, dim))


def _replace(module: nn.Module, field: str, value: torch.Tensor) -> None:
    from torch import nn

    old = getattr(module, field)
    if isinstance(old, nn.Parameter):
        setattr(module, field, nn.Parameter(value, requires_grad=old.requires_grad))
    else:
        setattr(module, field, value)
