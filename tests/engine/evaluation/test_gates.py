from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation import Gate, GateKind, check_gates


def passes(gate: Gate, **measured: float | None) -> bool:
    return check_gates([gate], {k.replace("__", "."): v for k, v in measured.items()})[0].passed


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 300))
def test_a_drop_in_accuracy_is_exact_in_hundredths_of_a_point(before: int, after: int, limit: int) -> None:
    gate = Gate("max_drop", limit / 100, "accuracy")
    assert passes(gate, accuracy=after / 10_000, baseline__accuracy=before / 10_000) is (
        before - after <= limit
    )


def test_other_metrics_drop_in_their_own_unit_and_direction() -> None:
    assert passes(Gate("max_drop", 0.5, "mae"), mae=1.5, baseline__mae=1.0)
    assert not passes(Gate("max_drop", 0.5, "mae"), mae=1.6, baseline__mae=1.0)
    assert passes(Gate("max_drop", 0, "f1"), f1=0.9, baseline__f1=0.8)
    assert not passes(Gate("max_drop", 0.05, "loss", higher_is_better=False), loss=0.9, baseline__loss=0.8)


@pytest.mark.parametrize(
    ("gate", "key", "good", "bad"),
    [
        (Gate("min_value", 0.9, "accuracy"), "accuracy", 0.9, 0.899),
        (Gate("max_value", 0.1, "mae"), "mae", 0.1, 0.101),
        (Gate("max_latency_ms", 5), "latency_ms", 5.0, 5.01),
        (Gate("max_size_bytes", 1_000_000), "size_bytes", 1_000_000, 1_000_001),
        (Gate("min_size_ratio", 3.9), "size_ratio", 3.9, 3.89),
        (Gate("min_speedup", 1.5), "speedup", 1.5, 1.49),
        (Gate("max_memory_bytes", 2**28), "memory_bytes", 2**28, 2**28 + 1),
    ],
)
def test_limits_pass_at_the_boundary_and_not_beyond(gate: Gate, key: str, good: float, bad: float) -> None:
    assert passes(gate, **{key: good})
    assert not passes(gate, **{key: bad})
    for missing in ({}, {key: None}, {key: math.nan}):
        assert not passes(gate, **missing)
    assert Gate.from_json(gate.to_json()) == gate


def test_a_missing_baseline_never_passes() -> None:
    result = check_gates([Gate("max_drop", 100, "accuracy")], {"accuracy": 1.0})[0]
    assert not result.passed
    assert result.found is None
    assert result.sentence == "max_drop(accuracy) failed: baseline.accuracy was not measured"


def test_sentences_tell_what_was_found_and_wanted() -> None:
    measured = {"accuracy": 0.94, "baseline.accuracy": 0.98, "latency_ms": 2.0}
    drop, latency = check_gates([Gate("max_drop", 1, "accuracy"), Gate("max_latency_ms", 5)], measured)
    assert drop.sentence == (
        "max_drop(accuracy) failed: loss of accuracy, from 0.98 to 0.94, is 4 points, wanted at most 1 points"
    )
    assert latency.sentence == "max_latency_ms passed: latency is 2 ms, wanted at most 5 ms"
    assert latency.to_json()["found"] == 2.0


@pytest.mark.parametrize(
    ("kind", "limit", "metric"),
    [
        ("max_drop", 1, None),
        ("max_latency_ms", 1, "accuracy"),
        ("min_value", math.nan, "a"),
        ("max_fun", 1, None),
    ],
)
def test_gates_that_cannot_be(kind: GateKind, limit: float, metric: str | None) -> None:
    with pytest.raises(InputError):
        Gate(kind, limit, metric)
