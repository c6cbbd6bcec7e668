"""A driver fails, dies or is told to end at any call to the API: what serves goes on serving, the next ends the work.

A real API server and its controllers; the pods are simulated, so that a rollout takes a second or two.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.engine.deployment.cluster.crashes import faults_at, sample
from tests.engine.deployment.cluster.grounds import ground
from tests.engine.deployment.cluster.scenarios import NAMES, Scenario

if TYPE_CHECKING:
    from tests.engine.deployment.cluster.crashes import Fault, Faulty

pytestmark = pytest.mark.kubernetes

SAMPLE = 3
# Calls, and how many of them write; watches not counted. More than before is a cost that somebody should want.
COSTS = {
    "first": (42, 11),
    "blue-green": (46, 11),
    "canary": (79, 13),
    "rolling": (64, 14),
    "rollback": (30, 10),
    "way back": (19, 6),
}


def _cost(calls: Faulty) -> tuple[int, int]:
    counted = [point for point in calls.calls if not point.call.startswith("WATCH")]
    return len(counted), sum(point.writes for point in counted)


def _faults(calls: Faulty) -> list[Fault]:
    return [fault for point in calls.calls for fault in faults_at(point)]


def test_a_rollout_costs_as_many_calls_as_it_did_and_survives_a_sample_of_faults() -> None:
    # Another sample every day; all of them below.
    dice = random.Random(time.time() // 86400)
    with ground() as place:
        recorded = {name: Scenario(name, place).recorded() for name in NAMES}
        costs = {name: _cost(calls) for name, calls in recorded.items()}
        assert costs == COSTS, {name: dict(calls.counted) for name, calls in recorded.items()}
        for name in dice.sample(NAMES, SAMPLE):
            for fault in sample(_faults(recorded[name]), 1, dice):
                print(f"{name}: {fault}")
                assert Scenario(name, place).held_at(fault) is None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_at_every_call_comes_to_the_same_end(name: str) -> None:
    with ground() as place:
        if name != "first":
            for _ in range(5):  # the cluster keeps some revisions; from here on each rollout removes one
                Scenario("blue-green", place).recorded()
        faults = _faults(Scenario(name, place).recorded())
        wrong = [found for fault in faults if (found := Scenario(name, place).held_at(fault))]
        assert wrong == [], f"{len(wrong)} of {len(faults)}"
