"""Decides by scores which single weights go: below the mean, the smallest share, or N of M; knows no criterion."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from airflow_model_deploy.engine.compression.exact_mean import (
    FLOAT32_BITS,
    FLOAT64_BITS,
    exact_mean,
    lowest_kept,
    magnitude_chunks,
)
from airflow_model_deploy.engine.compression.layouts import Layout
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor

Rule = Literal["mean", "ratio"]
_SCOPES = {"mean": ("global", "tensor"), "ratio": ("global", "tensor", "row")}


def score_masks(
    scores: Mapping[str, Tensor],
    *,
    rule: Rule,
    scope: str = "global",
    ratio: float | None = None,
    weights: Mapping[str, Tensor] | None = None,
    layouts: Mapping[str, Layout] | None = None,
) -> dict[str, Tensor]:
    """Boolean masks in the scores' shapes, True where a weight stays; of scores, only magnitudes count.

    mean: s_i goes where |s_i| < (1/n) * sum_j |s_j|, strictly: a score equal to the mean stays. The mean is
    exact, and what lies below it by no more than the machine epsilon (of float64 for float64 weights, else of
    float32) is equal to it: see `lowest_kept`.
    ratio: exactly floor(ratio * n) weights of the smallest scores go, with `ratio` read as the decimal it is
    written as; among equal ones the first go.
    N:M as scope: of every M consecutive weights along the input dimension, at one output and one position of a
    kernel, the N with the largest scores stay; what is left over behind the last M stays whole.

    Args:
        scores: floating tensors by name, any shape and memory layout.
        rule: "mean" or "ratio".
        scope: what n counts: all scores together ("global"), each tensor ("tensor") or each output's row ("row");
            for ratio also a pattern such as "2:4", which takes the place of `ratio`.
        ratio: 0 < ratio < 1; only the ratio rule without a pattern reads it.
        weights: what the scores are of, where that is not the scores themselves: weights that are zero already go
            before all others.
        layouts: which dimensions are output and input; by default the first two, in this order.
    """
    check_rule(rule, scope, ratio)
    _check_scores(scores, weights)
    weights, layouts = weights or scores, layouts or {}
    if rule == "mean":
        groups = [dict(scores)] if scope == "global" else [{name: s} for name, s in scores.items()]
        return {name: mask for group in groups for name, mask in _not_below_mean(group, weights).items()}
    ranks = {name: _ranks(score, weights[name]) for name, score in scores.items()}
    share = Fraction(str(ratio)) if ratio is not None else Fraction(0)
    if scope == "global":
        return _without_smallest(ranks, share)
    if scope == "tensor":
        return {
            n: m for name, rank in ranks.items() for n, m in _without_smallest({name: rank}, share).items()
        }
    pattern = _pattern(scope)
    if pattern:
        _check_groups(ranks, layouts, pattern[1])
    return {name: _by_row(rank, layouts.get(name, Layout()), share, pattern) for name, rank in ranks.items()}


def check_rule(rule: str, scope: str, ratio: float | None) -> None:
    """Refuse rules and scopes that there are not, or not together."""
    if rule not in _SCOPES:
        raise InputError("rule", found=rule, wanted="mean or ratio")
    pattern = _pattern(scope) if rule == "ratio" else None
    if pattern:
        if not 0 < pattern[0] < pattern[1]:
            raise InputError("scope", found=scope, wanted="N:M with 0 < N < M, such as 2:4")
        return
    if scope not in _SCOPES[rule]:
        wanted = " or ".join(_SCOPES[rule]) + (", or a pattern such as 2:4" if rule == "ratio" else "")
        raise InputError(f"scope of the rule {rule}", found=scope, wanted=wanted)
    if rule == "ratio" and (ratio is None or not 0 < ratio < 1):
        raise InputError("ratio", found=ratio, wanted="a number between 0 and 1")


def _pattern(scope: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d{1,6}):(\d{1,6})", scope)
    return (int(found[1]), int(found[2])) if found else None


def _check_scores(scores: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None) -> None:
    if not scores or not all(s.numel() for s in scores.values()):
        raise InputError("weights to prune", found="no elements", wanted="at least one weight in each tensor")
    for name, score in scores.items():
        if weights is not None:
            _check_finite(f"weight {name}", weights[name])
        _check_finite(f"weight {name}" if weights is None else f"the score of weight {name}", score)


def _check_finite(label: str, tensor: Tensor) -> None:
    import torch

    if not tensor.is_floating_point():
        raise InputError(label, found=str(tensor.dtype), wanted="a floating type")
    bad = tensor.numel() - int(torch.isfinite(tensor.detach()).sum())
    if bad:
        raise InputError(
            label,
            found=f"{bad} values that are NaN or infinite",
            wanted="finite weights",
            remedy="Train again or restore an earlier checkpoint; such a model cannot be pruned.",
        )


def _not_below_mean(scores: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    mean = exact_mean(scores)
    masks = {}
    for name, score in scores.items():
        bits = FLOAT64_BITS if weights[name].dtype == torch.float64 else FLOAT32_BITS
        limit = lowest_kept(mean, bits)
        kept = [torch.from_numpy(chunk >= limit) for chunk in magnitude_chunks(score)]
        masks[name] = torch.cat(kept).reshape(score.shape).to(score.device)
    return masks


def _ranks(score: Tensor, weight: Tensor) -> Tensor:
    """Magnitudes in a type that holds them exactly, on the CPU; -1 where the weight is zero already."""
    import torch

    dtype = torch.float64 if score.dtype == torch.float64 else torch.float32
    rank = score.detach().to("cpu", dtype).abs()
    return rank if weight is score else rank.masked_fill(weight.detach().to("cpu") == 0, -1)


def _without_smallest(ranks: Mapping[str, Tensor], share: Fraction) -> dict[str, Tensor]:
    """Masks that drop this share of the lowest ranks; ties go in order of name and index."""
    import numpy as np
    import torch

    flat = np.concatenate([rank.reshape(-1).numpy() for rank in ranks.values()])
    count = math.floor(share * flat.size)
    kept = np.ones(flat.size, dtype=bool)
    if count:
        limit = np.partition(flat, count - 1)[count - 1]
        kept = flat >= limit
        ties = np.flatnonzero(flat == limit)
        kept[ties[: count - int(np.count_nonzero(~kept))]] = False
    masks, begin = {}, 0
    for name, rank in ranks.items():
        part = kept[begin : begin + rank.numel()].copy()
        masks[name] = torch.from_numpy(part).reshape(rank.shape)
        begin += rank.numel()
    return masks


def _by_row(rank: Tensor, layout: Layout, share: Fraction, pattern: tuple[int, int] | None) -> Tensor:
    """The mask of one tensor whose rows, or whose groups of M in a row, are compared within themselves."""
    import numpy as np
    import torch

    rows = layout.rows(rank) if rank.dim() > 1 else rank.reshape(1, -1)
    if pattern is None:
        flat = rows.reshape(len(rows), -1).numpy()
        kept = _lowest_gone(flat, math.floor(share * flat.shape[1])).reshape(rows.shape)
    else:
        stays, size = pattern
        inputs_last = np.moveaxis(rows.numpy(), 1, -1)
        whole = inputs_last.shape[-1] // size * size
        groups = np.ascontiguousarray(inputs_last[..., :whole]).reshape(-1, size)
        kept = np.ones(inputs_last.shape, dtype=bool)
        kept[..., :whole] = _lowest_gone(groups, size - stays).reshape(*inputs_last.shape[:-1], whole)
        kept = np.ascontiguousarray(np.moveaxis(kept, -1, 1))
    mask = torch.from_numpy(kept)
    return (layout.back(mask) if rank.dim() > 1 else mask).reshape(rank.shape).contiguous()


def _lowest_gone(rows: np.ndarray, count: int) -> np.ndarray:
    """For each row, False at its `count` lowest values; among equal ones the first."""
    import numpy as np

    kept = np.ones(rows.shape, dtype=bool)
    lowest = np.argsort(rows, axis=1, kind="stable")[:, :count]
    np.put_along_axis(kept, lowest, values=False, axis=1)
    return kept


def _check_groups(ranks: Mapping[str, Tensor], layouts: Mapping[str, Layout], size: int) -> None:
    widths = {
        name: layouts.get(name, Layout()).rows(rank).shape[1] if rank.dim() > 1 else rank.numel()
        for name, rank in ranks.items()
    }
    if max(widths.values()) < size:
        raise InputError(
            "weights to prune",
            found=f"at most {max(widths.values())} inputs a row",
            wanted=f"a layer with at least {size}, one whole group",
            remedy="Choose a smaller pattern.",
        )
