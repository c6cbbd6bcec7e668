"""One treatment a layer: never above the bound, and as cheap as trying everything."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_model_deploy.engine.compression import best_upgrade, cheapest
from airflow_model_deploy.engine.compression.knapsack import STEPS

KINDS = ("fp32", "int8", "int4")
number = st.floats(0, 10)
layer = st.tuples(
    st.fixed_dictionaries({kind: st.floats(-1, 10) for kind in KINDS}),
    st.fixed_dictionaries(dict.fromkeys(KINDS, number)),
)


def brute_force(losses, costs, bound):
    """(least cost, its loss) of all combinations within the bound; None without any."""
    found = [
        (
            sum(cost[t] for cost, t in zip(costs, chosen, strict=True)),
            sum(max(0.0, one[t]) for one, t in zip(losses, chosen, strict=True)),
        )
        for chosen in itertools.product(*losses)
    ]
    within = [pair for pair in found if pair[1] <= bound]
    return min(within, default=None)


def totals(losses, costs, chosen):
    cost = sum(c[t] for c, t in zip(costs, chosen, strict=True))
    return cost, sum(max(0.0, one[t]) for one, t in zip(losses, chosen, strict=True))


@settings(deadline=None, max_examples=150)
@given(st.lists(layer, min_size=1, max_size=5), st.floats(0, 25))
def test_against_trying_everything(layers, bound):
    losses, costs = [one for one, _ in layers], [cost for _, cost in layers]
    chosen = cheapest(losses, costs, bound)
    tighter = brute_force(losses, costs, bound * (1 - len(layers) / STEPS))
    if chosen is None:
        assert tighter is None
        return
    cost, loss = totals(losses, costs, chosen)
    assert loss <= bound * (1 + 1e-9)
    assert cost >= brute_force(losses, costs, bound * (1 + 1e-9))[0] - 1e-9
    if tighter is not None:  # losses are rounded up by at most a step a layer
        assert cost <= tighter[0] + 1e-9


def test_a_choice_by_hand():
    losses = [{"fp32": 0, "int8": 2}, {"fp32": 0, "int8": 3, "int4": 6}, {"fp32": 0, "int8": 4}]
    costs = [{"fp32": 8, "int8": 4}, {"fp32": 8, "int8": 4, "int4": 1}, {"fp32": 20, "int8": 10}]
    assert cheapest(losses, costs, 6.1) == ["int8", "fp32", "int8"]
    assert cheapest(losses, costs, 9.1) == ["int8", "int8", "int8"]
    assert cheapest(losses, costs, 12.1) == ["int8", "int4", "int8"]
    assert cheapest(losses, costs, 4.5) == ["fp32", "fp32", "int8"]


def test_an_infinite_bound_takes_the_cheapest_and_the_lower_loss_of_equals():
    losses = [{"fp32": 0, "int8": 1e9, "int4": 3}, {"fp32": 0, "int8": 1}]
    assert cheapest(losses, [{"fp32": 4, "int8": 1, "int4": 1}, {"fp32": 1, "int8": 1}], math.inf) == [
        "int4",
        "fp32",
    ]


@pytest.mark.parametrize("bound", [5, 1e-9])
def test_among_equal_costs_the_lower_loss_wins(bound):
    losses = [{"b": bound / 1e6, "a": bound / 1e7}, {"x": bound / 2, "y": 0}]
    assert cheapest(losses, [{"a": 1, "b": 1}, {"x": 1, "y": 1}], bound) == ["a", "y"]


@pytest.mark.parametrize("bound", [0, -1, 1.9, float("nan")])
def test_a_bound_that_nothing_keeps(bound):
    assert (
        cheapest([{"int8": 1.0}, {"int8": 1.0, "int4": 2.0}], [{"int8": 1}, {"int8": 2, "int4": 1}], bound)
        is None
    )


def test_nothing_to_lose_keeps_floats():
    assert cheapest([{"fp32": 0.0, "int8": 1e-30}], [{"fp32": 4, "int8": 1}], 0) == ["fp32"]
    assert cheapest([{"fp32": 0.0, "int8": -1e-9}], [{"fp32": 4, "int8": 1}], 0) == ["int8"], (
        "noise costs nothing"
    )
    assert cheapest([{"fp32": 0.0}], [{"fp32": 4}], -1) is None
    assert cheapest([], [], 1) == []


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_format_that_breaks_the_model_is_not_chosen(broken):
    assert cheapest([{"fp32": 0.0, "int8": broken}], [{"fp32": 4, "int8": 1}], 1) == ["fp32"]


def test_many_layers_stay_within_the_bound():
    losses = [{"fp32": 0.0, "int8": 1 / 3, "int4": 0.7} for _ in range(100)]
    costs = [{"fp32": 4.0, "int8": 1.0, "int4": 0.5} for _ in range(100)]
    cost, loss = totals(losses, costs, cheapest(losses, costs, 10.0))
    assert loss <= 10
    assert cost <= 400 - 3 * 29 + 1e-9


def test_the_upgrade_that_takes_away_most_loss_for_its_cost():
    losses = [{"fp32": 0.0, "int8": 4.0}, {"fp32": 0.0, "int8": 1.0, "int4": 5.0}, {"fp32": 0.0, "int8": 2.0}]
    costs = [{"fp32": 9.0, "int8": 1.0}, {"fp32": 8.0, "int8": 3.0, "int4": 1.0}, {"fp32": 6.0, "int8": 2.0}]
    # gain a unit of cost: 4/8; 5/7 or 4/2; 2/4
    assert best_upgrade(["int8", "int4", "int8"], losses, costs) == (1, "int8")
    assert best_upgrade(["int8", "int8", "int8"], losses, costs) == (0, "fp32")
    assert best_upgrade(["fp32", "fp32", "int8"], losses, costs) == (2, "fp32")
    assert best_upgrade(["fp32"] * 3, losses, costs) is None


def test_an_upgrade_that_costs_nothing_comes_first():
    losses = [{"fp32": 0.0, "int8": 100.0}, {"fp32": 0.0, "int8": 0.001}]
    costs = [{"fp32": 9.0, "int8": 1.0}, {"fp32": 1.0, "int8": 2.0}]
    assert best_upgrade(["int8", "int8"], losses, costs) == (1, "fp32")
    assert best_upgrade(["fp32", "int8"], [losses[0], {"fp32": 0.0, "int8": -1.0}], costs) is None
