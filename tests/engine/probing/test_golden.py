from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.probing import (
    GoldenRequest,
    GoldenSet,
    Tolerance,
    compare,
    compare_both,
    load_golden,
    make_golden,
    matches,
    write_golden,
)

if TYPE_CHECKING:
    from pathlib import Path


def f32(values: object) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def i64(values: object) -> np.ndarray:
    return np.array(values, dtype=np.int64)


EXACT = {"y": Tolerance(0.0, 0.0, "exact")}


def _one(want: object, tolerance: Tolerance, *, built: object = None) -> GoldenSet:
    x = np.zeros((1, 1), np.float32)
    original = np.asarray(want)
    request = GoldenRequest(
        "golden-000", {"x": x}, {"y": original}, {"y": original if built is None else np.asarray(built)}
    )
    return GoldenSet((request,), {"original": {"y": tolerance}, "built": {"y": tolerance}})


def test_a_set_survives_its_file(golden: GoldenSet, tmp_path: Path) -> None:
    write_golden(golden, tmp_path / "golden.json")
    again = load_golden(tmp_path / "golden.json")
    assert again.tolerance == golden.tolerance
    for ours, theirs in zip(golden.requests, again.requests, strict=True):
        assert ours.id == theirs.id
        for kind in ("inputs", "original", "built"):
            for name, array in getattr(ours, kind).items():
                np.testing.assert_array_equal(array, getattr(theirs, kind)[name], strict=True)
    write_golden(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "golden.json").read_bytes()


def test_samples_become_requests_of_the_rows_asked_for() -> None:
    x = np.arange(5, dtype=np.float32)[:, None]
    tolerances = {"original_tolerance": EXACT, "built_tolerance": EXACT}
    golden = make_golden({"x": x}, {"y": x}, {"y": x}, rows_per_request=2, **tolerances)
    assert [r.id for r in golden.requests] == ["golden-000", "golden-001", "golden-002"]
    assert [r.inputs["x"].shape for r in golden.requests] == [(2, 1), (2, 1), (1, 1)]


@pytest.mark.parametrize("harm", ["rows", "nan", "tolerance", "empty"])
def test_a_set_that_could_never_match_is_not_made(harm: str) -> None:
    x = np.ones((0 if harm == "empty" else 3, 2), np.float32)
    y = x[:2] if harm == "rows" else x * (np.nan if harm == "nan" else 1)
    tolerance = {"z": EXACT["y"]} if harm == "tolerance" else EXACT
    with pytest.raises(InputError):
        make_golden({"x": x}, {"y": y}, {"y": x}, original_tolerance=tolerance, built_tolerance=EXACT)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1, "requests": [], "tolerance": {}}'],
)
def test_a_file_that_is_no_golden_set_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "golden.json").write_text(text)
    with pytest.raises(InputError):
        load_golden(tmp_path / "golden.json")


def test_a_negative_or_missing_tolerance_is_refused(golden: GoldenSet, tmp_path: Path) -> None:
    for absolute in (-1, None, float("nan")):
        value = golden.to_json()
        value["tolerance"]["built"]["y"]["absolute"] = absolute
        (tmp_path / "golden.json").write_text(json.dumps(value))
        with pytest.raises(InputError):
            load_golden(tmp_path / "golden.json")


@given(
    want=st.floats(-1e3, 1e3, width=32),
    got=st.floats(-1e3, 1e3, width=32),
    absolute=st.floats(0, 10),
    relative=st.floats(0, 0.1),
)
def test_an_element_matches_by_the_published_rule(
    want: float, got: float, absolute: float, relative: float
) -> None:
    golden = _one(f32([[want]]), Tolerance(absolute, relative, "t"))
    found = compare(golden, {"golden-000": {"y": f32([[got]])}}, against="built")
    assert found.passed is (abs(got - want) <= absolute + relative * abs(want))
    assert found.max_abs_error == abs(got - want)


@pytest.mark.parametrize("got", [np.nan, np.inf])
def test_nan_and_infinity_never_match(got: float) -> None:
    golden = _one(f32([[1.0]]), Tolerance(1e9, 0.0, "anything"))
    found = compare(golden, {"golden-000": {"y": f32([[got]])}}, against="original")
    assert not found.passed
    assert found.max_abs_error == np.inf


def test_large_integers_are_compared_exactly() -> None:
    """A double can't tell these two apart."""
    golden = _one(i64([2**60]), Tolerance(0.0, 0.0, "exact"))
    assert not compare(golden, {"golden-000": {"y": i64([2**60 + 1])}}, against="built").passed
    assert compare(golden, {"golden-000": {"y": i64([2**60])}}, against="built").passed


def test_booleans_follow_the_same_rule() -> None:
    golden = _one(np.array([True, False]), Tolerance(0.0, 0.0, "exact"))
    assert compare(golden, {"golden-000": {"y": np.array([True, False])}}, against="built").passed
    assert not compare(golden, {"golden-000": {"y": np.array([True, True])}}, against="built").passed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "output y: missing"),
        ({"y": f32([1.0])}, "got shape [1], wanted [1, 2]"),
        ({"y": np.array([[1.0, 2.0]])}, "got float64, wanted float32"),
        ({"y": f32([[1.0, 2.5]])}, "output y[0, 1]: got 2.5, wanted 2.0 +- 0.25"),
        ("the server was gone", "golden-000: the server was gone"),
    ],
)
def test_a_mismatch_says_where_and_what(answer: object, words: str) -> None:
    golden = _one(f32([[1.0, 2.0]]), Tolerance(0.25, 0.0, "t"))
    found = compare(golden, {"golden-000": answer}, against="built")  # type: ignore[dict-item]
    assert (found.passed, found.matched, found.total) == (False, 0, 1)
    assert words in found.mismatches[0]
    assert words in found.summary


def test_no_answer_is_no_match() -> None:
    golden = _one(f32([[1.0]]), EXACT["y"])
    assert compare(golden, {}, against="built").mismatches == ("golden-000: no answer",)


def test_thousands_of_wrong_elements_stay_readable() -> None:
    golden = _one(np.zeros((1, 5000), np.float32), EXACT["y"])
    found = compare(golden, {"golden-000": {"y": np.ones((1, 5000), np.float32)}}, against="built")
    assert len(found.mismatches) == 4
    assert "5000 of 5000 elements are off" in found.mismatches[-1]


def test_both_answers_have_to_match() -> None:
    golden = _one(f32([[1.0]]), Tolerance(0.5, 0.0, "t"), built=f32([[1.8]]))
    for got, both in ((1.4, True), (1.2, False), (1.7, False)):
        answer = {"y": f32([[got]])}
        found = compare_both(golden, {"golden-000": answer})
        assert found.passed is both
        assert matches(golden.requests[0], answer, golden) is both
        assert [part.against for part in found.parts] == ["original", "built"]
    assert "against original" in found.mismatches[0]
