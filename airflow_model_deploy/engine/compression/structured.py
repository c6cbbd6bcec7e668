"""Decides which channels go, with everything that depends on them; leaves the model it is given alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.compression.channel_groups import ChannelGroup, channel_groups
from airflow_model_deploy.engine.compression.removal import (
    Norm,
    check_choice,
    group_scores,
    is_sound,
    kept_size,
    surgery_of,
    weakest,
)
from airflow_model_deploy.engine.compression.selection import matching
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Surgery, width

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from airflow_model_deploy.engine.compression.forward import Example


def prune_channels(
    model: nn.Module,
    example_inputs: Example,
    *,
    ratio: float,
    round_to: int = 8,
    criterion: Norm = "l2",
    exclude: Sequence[str] = (),
    gradients: Iterable[Mapping[str, Tensor]] | None = None,
) -> Surgery:
    """Choose the weakest `ratio` of the channels of every group of layers that must shrink together.

    A channel's strength is counted over all weights that belong to it, in every layer of its group: filters that
    make it, batch norm scales, weights that read it (`group_scores` has the formulas). Channels that reach the
    model's outputs stay. What remains is a multiple of `round_to` (the nearest one, at least one of it), because
    kernels work in such blocks. A group stays whole unless cutting it leaves the outputs as they were with those
    channels disconnected: this is computed on the example inputs, not assumed.

    Args:
        model: unchanged. Apply the result with `surgery.apply(model)`.
        example_inputs: arguments of forward, by name or in order.
        ratio: share of channels to remove, between 0 and 1.
        round_to: multiple that remains.
        criterion: "l2" (sum of squares), "l1" (sum of magnitudes) or "taylor" (squared first-order change of loss).
        exclude: patterns of module names whose output channels stay.
        gradients: of the model's parameters by name, batch by batch (`batch_gradients`); taylor reads them once.

    Raises:
        InputError: nothing can be pruned, or the model cannot be traced.
    """
    check_choice(ratio, round_to, criterion, gradients)
    named = [name for name, module in model.named_modules() if width(module, "out") is not None]
    kept_whole = matching(exclude, named, "exclude")
    groups = channel_groups(model, example_inputs, kept_whole)
    removals = [
        (group, weakest(group, score, kept_size(group.size, ratio, round_to)))
        for group, score in zip(groups, group_scores(model, groups, criterion, gradients), strict=True)
    ]
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


def _verified(
    model: nn.Module, example_inputs: Example, removals: list[tuple[ChannelGroup, set[int]]]
) -> Surgery:
    """All removals together if that is sound, else those that are sound one by one."""
    surgery = surgery_of(model, removals)
    if not removals or is_sound(model, example_inputs, surgery, removals):
        return surgery
    alone = [r for r in removals if is_sound(model, example_inputs, surgery_of(model, [r]), [r])]
    surgery = surgery_of(model, alone)
    if alone and not is_sound(model, example_inputs, surgery, alone):
        return Surgery(())
    return surgery
