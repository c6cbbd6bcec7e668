"""Scores single weights by a criterion: magnitude, gradient, both (Taylor), or magnitude by activity (Wanda)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.compression.layouts import Layout
from airflow_model_deploy.engine.compression.score_masks import Rule, score_masks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def magnitude_masks(
    weights: Mapping[str, Tensor],
    *,
    criterion: Rule,
    scope: str = "global",
    ratio: float | None = None,
    layouts: Mapping[str, Layout] | None = None,
) -> dict[str, Tensor]:
    """Boolean masks, True where a weight stays; the score of a weight is its magnitude.

    Args:
        weights: floating tensors by name, any shape and memory layout.
        criterion: the rule, "mean" or "ratio", as `score_masks` has it.
        scope: "global", "tensor", "row" or a pattern such as "2:4", as `score_masks` has it.
        ratio: 0 < ratio < 1; the mean rule and patterns do not read it.
        layouts: which dimensions are output and input; by default the first two, in this order.
    """
    return score_masks(weights, rule=criterion, scope=scope, ratio=ratio, layouts=layouts)


def taylor_scores(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """|w * g|, in float64: how much the loss would change, to first order, if the weight were zero.

    The connection sensitivity of SNIP (Lee, Ajanthan, Torr 2019) up to a factor, and the first-order Taylor
    criterion of Molchanov and others (2017) for single weights.
    """
    import torch

    return {
        name: (weight.detach().to("cpu", torch.float64) * gradients[name].to("cpu", torch.float64)).abs()
        for name, weight in weights.items()
    }


def wanda_scores(
    weights: Mapping[str, Tensor],
    square_sums: Mapping[str, Tensor],
    layouts: Mapping[str, Layout] | None = None,
) -> dict[str, Tensor]:
    """|w_ij| * ||x_j||_2, in float64: magnitude by the norm of the input that the weight is multiplied with.

    Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models" (2024),
    where a row's weights are compared with each other (scope "row").

    Args:
        weights: floating tensors by name.
        square_sums: by the same names, sums of squares of the inputs, [groups, inputs of a group, *kernel], as
            `input_square_sums` collects them.
        layouts: which dimensions are output and input.
    """
    import torch

    scores = {}
    for name, weight in weights.items():
        layout = (layouts or {}).get(name, Layout())
        rows = layout.rows(weight.detach().to("cpu", torch.float64).abs())
        norms = square_sums[name].sqrt()
        blocks = rows.reshape(len(norms), -1, *rows.shape[1:]) * norms[:, None]
        scores[name] = layout.back(blocks.reshape(rows.shape))
    return scores
