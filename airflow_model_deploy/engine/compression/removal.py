"""Removes chosen channels of groups of layers: which go, as cuts of a surgery, and whether the cut model is sound."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

from airflow_model_deploy.engine.compression.cost import output_tensors
from airflow_model_deploy.engine.compression.forward import forward
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Cut, Surgery, is_transposed_linear, width

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from airflow_model_deploy.engine.compression.channel_groups import ChannelGroup
    from airflow_model_deploy.engine.compression.forward import Example

    Removal = tuple[ChannelGroup, set[int]]

Norm = Literal["l1", "l2", "taylor"]


def check_choice(ratio: float, round_to: int, criterion: str, gradients: object) -> None:
    """Refuse arguments that no group can be pruned by."""
    if not 0 < ratio < 1:
        raise InputError("ratio", found=ratio, wanted="a number between 0 and 1")
    if round_to < 1:
        raise InputError("round_to", found=round_to, wanted="at least 1")
    if criterion not in ("l1", "l2", "taylor"):
        raise InputError("criterion", found=criterion, wanted="l1, l2 or taylor")
    if criterion == "taylor" and gradients is None:
        raise InputError(
            "the criterion taylor",
            found="no gradients",
            wanted="gradients of the loss, batch by batch",
            remedy="Give data and a loss, or choose l1 or l2.",
        )


def group_scores(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    criterion: Norm,
    gradients: Iterable[Mapping[str, Tensor]] | None,
) -> list[Tensor]:
    """For each group, the importance of its channels, float64.

    With S the set of all weights of a channel: l1 is sum_S |w|, l2 sum_S w^2, taylor sum_b (sum_S w * g_b)^2 over
    the batches b: the squared first-order change of the loss if the channel went. Source: Molchanov, Mallya,
    Tyree, Frosio, Kautz, "Importance Estimation for Neural Network Pruning" (2019), the group contribution.
    """
    import torch

    if criterion != "taylor":
        return [group.scores(model, 1 if criterion == "l1" else 2) for group in groups]
    totals = [torch.zeros(group.size, dtype=torch.float64) for group in groups]
    for batch in gradients or ():
        for total, group in zip(totals, groups, strict=True):
            total += group.contributions(model, batch) ** 2
    return totals


def kept_size(size: int, ratio: float, round_to: int) -> int:
    """The multiple of `round_to` nearest to (1 - ratio) * size, at least one of it."""
    return max(round_to, int(size * (1 - ratio) / round_to + 0.5) * round_to)


def weakest(group: ChannelGroup, scores: Tensor, keep: int) -> set[int]:
    """Root channels to remove so that `keep` stay: as many from each block of a grouped convolution."""
    import torch

    blocks = group.blocks
    keep -= keep % blocks
    if keep <= 0 or keep >= group.size:
        return set()
    block = group.size // blocks
    removed: set[int] = set()
    for begin in range(0, group.size, block):
        order = torch.argsort(scores[begin : begin + block], stable=True)
        removed.update(int(i) + begin for i in order[: block - keep // blocks])
    return removed


def surgery_of(model: nn.Module, removals: Iterable[Removal]) -> Surgery:
    """Groups are found on the uncut model, so their indices are final and simply unite."""
    gone: dict[tuple[str, str], set[int]] = {}
    for group, channels in removals:
        for part in group.parts:
            indices = {i for i, root in zip(part.indices, part.roots, strict=True) if root in channels}
            gone.setdefault((part.module, part.dimension), set()).update(indices)
    modules = dict(model.named_modules())
    cuts = []
    for name, module in modules.items():  # the model's own order: the same surgery every time
        for dimension in ("out", "in"):
            removed = gone.get((name, dimension))
            if removed:
                size = width(module, dimension) or 0
                cuts.append(Cut(name, dimension, tuple(i for i in range(size) if i not in removed)))
    return Surgery(tuple(cuts))


def is_sound(
    model: nn.Module, example_inputs: Example, surgery: Surgery, removals: Sequence[Removal]
) -> bool:
    """Whether the cut model runs, keeps output shapes, and equals the model with those channels unread."""
    import torch

    reference = copy.deepcopy(model).eval()
    modules = dict(reference.named_modules())
    with torch.no_grad():
        for cut in surgery.cuts:
            if cut.dimension == "in":
                _unread(modules[cut.module], cut)
        try:
            got = output_tensors(forward(surgery.apply(copy.deepcopy(model)).eval(), example_inputs))
        except (RuntimeError, InputError, ValueError, IndexError):
            return False  # a shape written into forward, or groups that would end up uneven
        want = output_tensors(forward(reference, example_inputs))
    if [t.shape for t in got] != [t.shape for t in want]:
        return False
    if any(group.normalized for group, _ in removals):
        return True  # layer norm takes its statistics over the channels: fewer of them, other values
    return all(_close(g, w) for g, w in zip(got, want, strict=True) if g.is_floating_point() and g.numel())


def _close(got: Tensor, want: Tensor) -> bool:
    """Equal but for the rounding of sums that are split elsewhere: 1e-3, more in types of fewer digits."""
    import torch

    step = torch.finfo(got.dtype).eps
    relative, absolute = max(1e-3, 8 * step), max(1e-4, 8 * step)
    return torch.allclose(got, want, rtol=relative, atol=absolute * float(want.abs().max()) + 1e-12)


def _unread(module: nn.Module, cut: Cut) -> None:
    """Set to zero the weights that read channels which are going."""
    import torch

    weight: Tensor = module.weight  # type: ignore[assignment]
    kept = torch.zeros(width(module, "in") or 0, dtype=torch.bool)
    kept[list(cut.kept)] = True
    if is_transposed_linear(module):
        weight[~kept] = 0
        return
    groups = int(getattr(module, "groups", 1))
    for rows, mask in zip(weight.chunk(groups, 0), kept.chunk(groups), strict=True):
        rows[:, ~mask] = 0
