"""Chooses one treatment a layer: least cost with the sum of the losses within a bound. Knows numbers only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

STEPS = 4096  # parts of the bound that losses are rounded up to


def cheapest(
    losses: Sequence[Mapping[str, float]], costs: Sequence[Mapping[str, float]], bound: float
) -> list[str] | None:
    """The treatment of each layer, so that their cost is least and the sum of their losses at most `bound`.

    A multiple-choice knapsack, solved by dynamic programming over losses rounded up to bound / STEPS: the bound is
    never exceeded; the cost can be above the optimum where a sum of up to one step a layer decides.
    Among equal costs the lower loss wins. A loss below zero (noise of its measurement) counts as zero.

    Args:
        losses: of each layer, by treatment.
        costs: likewise.
        bound: on the sum; may be infinite.

    Returns:
        None where even the least losses together exceed the bound.
    """
    import numpy as np

    if bound < 0:
        return None
    if math.isinf(bound):
        return [min(c, key=lambda t: (c[t], one[t])) for one, c in zip(losses, costs, strict=True)]
    units = [{t: _units(loss, bound) for t, loss in one.items()} for one in losses]
    best = np.zeros(STEPS + 1)  # least cost of the layers so far, at each sum of units at most
    picked: list[np.ndarray] = []
    names = [sorted(one, key=lambda t: (part[t], one[t])) for part, one in zip(units, losses, strict=True)]
    for one, cost, order in zip(units, costs, names, strict=True):
        found = np.full((len(order), STEPS + 1), np.inf)
        for row, treatment in enumerate(order):
            used = one[treatment]
            if used <= STEPS:
                found[row, used:] = best[: STEPS + 1 - used] + cost[treatment]
        picked.append(found.argmin(axis=0))
        best = found.min(axis=0)
    if not math.isfinite(float(best[STEPS])):
        return None
    return _walk_back(units, names, picked)


def _units(loss: float, bound: float) -> int:
    if loss <= 0:
        return 0
    if bound == 0 or not loss <= bound:  # NaN and infinity are no losses to pay
        return STEPS + 1
    return math.ceil(loss / bound * STEPS - 1e-9)


def _walk_back(
    units: Sequence[Mapping[str, int]], names: Sequence[Sequence[str]], picked: Sequence[np.ndarray]
) -> list[str]:
    left, chosen = STEPS, []
    for one, order, choice in zip(reversed(units), reversed(names), reversed(picked), strict=True):
        treatment = order[int(choice[left])]
        chosen.append(treatment)
        left -= one[treatment]
    return chosen[::-1]


def best_upgrade(
    chosen: Sequence[str], losses: Sequence[Mapping[str, float]], costs: Sequence[Mapping[str, float]]
) -> tuple[int, str] | None:
    """The change of one layer's treatment that takes away most loss for its cost; None where nothing does.

    For repairing a plan whose verified loss exceeds its bound.
    """
    found: tuple[float, int, str] | None = None
    for layer, (now, one, cost) in enumerate(zip(chosen, losses, costs, strict=True)):
        for treatment in one:
            gain = max(one[now], 0.0) - max(one[treatment], 0.0)
            if gain <= 0:
                continue
            price = max(cost[treatment] - cost[now], 1e-12)
            if found is None or gain / price > found[0]:
                found = (gain / price, layer, treatment)
    return None if found is None else found[1:]
