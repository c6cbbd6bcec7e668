from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.probing import derive_tolerance, tight_tolerance


def f32(values: object) -> np.ndarray:
    return np.array(values, dtype=np.float32)


FLOATS = hnp.arrays(np.float32, (5, 3), elements={"min_value": -100, "max_value": 100})


@given(FLOATS, FLOATS)
def test_the_promise_is_the_largest_deviation_with_its_margin(o: np.ndarray, b: np.ndarray) -> None:
    got = derive_tolerance({"y": o}, {"y": b}, margin=1.5, source="sample")["y"]
    deviation = max(abs(float(p) - float(q)) for p, q in zip(o.ravel(), b.ravel(), strict=True))
    largest = max(abs(float(p)) for p in o.ravel())
    assert got.absolute == pytest.approx(max(1.5 * deviation, 1e-4 * largest))
    assert got.relative == 0


def test_identical_outputs_still_leave_room_for_another_cpu() -> None:
    o = f32([[-20.0, 3.0]])
    got = derive_tolerance({"y": o}, {"y": o}, source="400 rows")["y"]
    assert got.absolute == pytest.approx(20 * 1e-4)
    assert got.source.startswith("400 rows: ")


@given(FLOATS, FLOATS, FLOATS)
def test_the_tight_tolerance_is_four_times_the_worst_variation(
    b: np.ndarray, v: np.ndarray, w: np.ndarray
) -> None:
    got = tight_tolerance({"y": b}, [{"y": v}, {"y": w}])["y"]
    wide = [a.astype(np.float64) for a in (b, v, w)]
    deviation = max(np.abs(wide[0] - wide[1]).max(), np.abs(wide[0] - wide[2]).max())
    span = wide[0].max() - wide[0].min() or np.abs(wide[0]).max()
    assert got.absolute == pytest.approx(4 * max(deviation, 1e-5 * span))


def test_a_constant_output_takes_its_size_as_range() -> None:
    b = np.full((3, 1), 5.0, np.float32)
    assert tight_tolerance({"y": b}, [{"y": b}])["y"].absolute == pytest.approx(4 * 1e-5 * 5)


@pytest.mark.parametrize(
    ("o", "b"),
    [
        ({"y": np.ones((2, 1))}, {"z": np.ones((2, 1))}),
        ({"y": np.ones((2, 1))}, {"y": np.ones((1, 1))}),
        ({"y": np.ones((2, 1))}, {"y": np.full((2, 1), np.nan)}),
        ({"y": np.ones((0, 1))}, {"y": np.ones((0, 1))}),
        ({}, {}),
    ],
)
def test_outputs_that_cannot_be_compared_give_no_tolerance(
    o: dict[str, np.ndarray], b: dict[str, np.ndarray]
) -> None:
    with pytest.raises(InputError):
        derive_tolerance(o, b, source="s")
    with pytest.raises(InputError):
        tight_tolerance(o, [b])


def test_no_variation_measured_is_no_tolerance() -> None:
    with pytest.raises(InputError, match="variations"):
        tight_tolerance({"y": np.ones((2, 1))}, [])


def test_a_margin_below_one_promises_less_than_was_measured() -> None:
    with pytest.raises(InputError, match="margin"):
        derive_tolerance({"y": np.ones((2, 1))}, {"y": np.ones((2, 1))}, margin=0.9, source="s")
