"""Decides which channels go, with everything that depends on them; leaves the model it is given alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

from airflow_model_deploy.engine.compression.channel_groups import ChannelGroup, channel_groups
from airflow_model_deploy.engine.compression.cost import output_tensors
from airflow_model_deploy.engine.compression.forward import forward
from airflow_model_deploy.engine.compression.selection import matching
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Cut, Surgery, width

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from airflow_model_deploy.engine.compression.forward import Example

Norm = Literal["l1", "l2"]


def prune_channels(
    model: nn.Module,
    example_inputs: Example,
    *,
    ratio: float,
    round_to: int = 8,
    criterion: Norm = "l2",
    exclude: Sequence[str] = (),
) -> Surgery:
    """Choose the weakest `ratio` of the channels of every group of layers that must shrink together.

    A channel's strength is the norm of all weights that belong to it, over every layer of its group: filters
    that make it, batch norm scales, weights that read it. Channels that reach the model's outputs stay. What
    remains is a multiple of `round_to` (the nearest one, at least one of it), because kernels work in such
    blocks. A group stays whole unless cutting it leaves the outputs as they were with those channels
    disconnected: this is computed on the example inputs, not assumed.

    Args:
        model: unchanged. Apply the result with `surgery.apply(model)`.
        example_inputs: arguments of forward, by name or in order.
        ratio: share of channels to remove, between 0 and 1.
        round_to: multiple that remains.
        criterion: "l2" (sum of squares) or "l1" (sum of magnitudes).
        exclude: patterns of module names whose output channels stay.

    Raises:
        InputError: nothing can be pruned, or the model cannot be traced.
    """
    if not 0 < ratio < 1:
        raise InputError("ratio", found=ratio, wanted="a number between 0 and 1")
    if round_to < 1:
        raise InputError("round_to", found=round_to, wanted="at least 1")
    if criterion not in ("l1", "l2"):
        raise InputError("criterion", found=criterion, wanted="l1 or l2")
    named = [name for name, module in model.named_modules() if width(module, "out") is not None]
    kept_whole = matching(exclude, named, "exclude")
    groups = channel_groups(model, example_inputs, kept_whole)
    removals = [(group, _weakest(model, group, ratio, round_to, criterion)) for group in groups]
    removals = [(group, channels) for group, channels in removals if channels]
    surgery = _verified(model, example_inputs, removals)
    if not surgery.cuts:
        raise InputError(
            f"channels of {type(model).__name__}",
            found=f"nothing to cut in {len(groups)} groups of layers at ratio {ratio}, round_to {round_to}"
            + _uncuttable(model),
            wanted="a Conv or Linear layer, not an output, with more channels than that",
            remedy="Lower round_to, raise ratio, or prune single weights instead (magnitude-ratio).",
        )
    return surgery


def _uncuttable(model: nn.Module) -> str:
    """Name the layers that have weights and that Surgery cannot cut."""
    found = [
        f"{name or 'the model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None and width(module, "out") is None
    ]
    if not found:
        return ""
    return f"; layers whose channels can't be cut: {', '.join(found[:6])}{', ...' if len(found) > 6 else ''}"


def _weakest(model: nn.Module, group: ChannelGroup, ratio: float, round_to: int, criterion: Norm) -> set[int]:
    """Root channels to remove: as many from each block of a grouped convolution."""
    import torch

    keep = max(round_to, int(group.size * (1 - ratio) / round_to + 0.5) * round_to)
    blocks = group.blocks
    keep -= keep % blocks
    if keep <= 0 or keep >= group.size:
        return set()
    scores = group.scores(model, 1 if criterion == "l1" else 2)
    block = group.size // blocks
    removed: set[int] = set()
    for begin in range(0, group.size, block):
        order = torch.argsort(scores[begin : begin + block], stable=True)
        removed.update(int(i) + begin for i in order[: block - keep // blocks])
    return removed


def _verified(
    model: nn.Module, example_inputs: Example, removals: list[tuple[ChannelGroup, set[int]]]
) -> Surgery:
    """All removals together if that is sound, else those that are sound one by one."""
    surgery = _surgery(model, removals)
    if not removals or _sound(model, example_inputs, surgery, removals):
        return surgery
    alone = [r for r in removals if _sound(model, example_inputs, _surgery(model, [r]), [r])]
    surgery = _surgery(model, alone)
    if alone and not _sound(model, example_inputs, surgery, alone):
        return Surgery(())
    return surgery


def _surgery(model: nn.Module, removals: Iterable[tuple[ChannelGroup, set[int]]]) -> Surgery:
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


def _sound(
    model: nn.Module,
    example_inputs: Example,
    surgery: Surgery,
    removals: list[tuple[ChannelGroup, set[int]]],
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
    return all(
        torch.allclose(g, w, rtol=1e-3, atol=1e-4 * float(w.abs().max()) + 1e-12)
        for g, w in zip(got, want, strict=True)
        if g.is_floating_point() and g.numel()
    )


def _unread(module: nn.Module, cut: Cut) -> None:
    """Set to zero the weights that read channels which are going."""
    import torch

    weight: Tensor = module.weight  # type: ignore[assignment]
    kept = torch.zeros(width(module, "in") or 0, dtype=torch.bool)
    kept[list(cut.kept)] = True
    groups = int(getattr(module, "groups", 1))
    for rows, mask in zip(weight.chunk(groups, 0), kept.chunk(groups), strict=True):
        rows[:, ~mask] = 0
