from __future__ import annotations

import re
import warnings
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from airflow_model_deploy.engine.compression import (
    affine_dequantize,
    affine_parameters,
    affine_quantize,
    fake_quantize,
)
from airflow_model_deploy.engine.errors import InputError

BITS = st.integers(2, 16)
FLOATS = {
    "float32": st.floats(-(2.0**100), 2.0**100, width=32),
    "bfloat16": st.floats(-(2.0**100), 2.0**100, width=32).map(lambda x: float(ml_dtypes.bfloat16(x))),
    "float64": st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300),
}


@st.composite
def arrays(draw):
    kind = draw(st.sampled_from(sorted(FLOATS)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
    size = int(np.prod(shape))
    values = draw(st.lists(FLOATS[kind] | st.just(0.0), min_size=size, max_size=size))
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.dtype(kind)
    array = np.array(values, np.float64).reshape(shape).astype(dtype)
    return array.T if draw(st.booleans()) else array[..., ::-1]  # memory in another order


@given(arrays(), BITS, st.booleans())
def test_nothing_moves_further_than_half_a_scale_and_zero_not_at_all(array, bits, per_channel):
    axis = array.ndim - 1 if per_channel else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parameters = affine_parameters(array, bits, axis=axis)
        levels = affine_quantize(array, parameters)
    assert levels.min() >= 0
    assert levels.max() <= 2**bits - 1
    back = affine_dequantize(levels, parameters)
    exact, scale = array.astype(np.float64), parameters.along(array.ndim)[0]
    assert (np.abs(exact - back) <= scale / 2 * (1 + 1e-9) + 1e-15 * np.abs(exact)).all()
    assert (back[exact == 0] == 0).all()
    assert (affine_quantize(np.zeros_like(array), parameters) == parameters.along(array.ndim)[1]).all()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), BITS)
def test_it_is_the_formula_in_exact_fractions(values, bits):
    """An independent reference: rational numbers, which round nowhere."""
    array = np.array(values, np.float32)
    parameters = affine_parameters(array, bits)
    low, high = (
        min(Fraction(0), *map(Fraction, map(float, array))),
        max(Fraction(0), *map(Fraction, map(float, array))),
    )
    exact = (high - low) / (2**bits - 1) or Fraction(1)
    assert abs(Fraction(float(parameters.scale)) - exact) <= exact * Fraction(1, 10**12)
    zero = -low / exact
    assert abs(int(parameters.zero_point) - zero) <= Fraction(1, 2) + Fraction(1, 10**6)
    for value, level in zip(array, affine_quantize(array, parameters), strict=True):
        wanted = Fraction(float(value)) / exact + int(parameters.zero_point)
        assert abs(wanted - int(level)) <= Fraction(1, 2) + Fraction(1, 10**6)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_scale_and_zero_point_by_hand(bits):
    parameters = affine_parameters(np.array([-1.0, 3.0], np.float32), bits)
    assert parameters.scale == 4 / (2**bits - 1)
    assert parameters.zero_point == round((2**bits - 1) / 4)


def test_agrees_with_torch():
    import torch

    weight = torch.randn(16, 40, generator=torch.Generator().manual_seed(0))
    parameters = affine_parameters(weight.numpy(), 8, axis=0)
    theirs = torch.fake_quantize_per_channel_affine(
        weight,
        torch.from_numpy(parameters.scale).float(),
        torch.from_numpy(parameters.zero_point).int(),
        0,
        0,
        255,
    )
    ours = fake_quantize(weight.numpy(), 8, axis=0)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)
    assert ours.dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 2.5, -7.0])
@pytest.mark.parametrize("shape", [(1,), (3, 4)])
def test_constants_and_single_elements_come_back_exactly(value, shape):
    array = np.full(shape, value, np.float32)
    np.testing.assert_array_equal(fake_quantize(array, 8), array)
    np.testing.assert_array_equal(fake_quantize(array, 3, axis=0), array)


def test_channels_have_ranges_of_their_own():
    weight = np.array([[1.0, -1.0, 0.3], [100.0, -50.0, 0.3]], np.float32)
    assert abs(fake_quantize(weight, 8)[0, 2] - 0.3) > 0.2  # swallowed by the other row's range
    assert abs(fake_quantize(weight, 8, axis=0)[0, 2] - 0.3) < 0.004
    parameters = affine_parameters(weight, 8, axis=-2)
    np.testing.assert_allclose(parameters.scale, [2 / 255, 150 / 255])


def test_more_bits_are_more_exact():
    weight = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    errors = [np.abs(fake_quantize(weight, bits) - weight).max() for bits in range(2, 17)]
    assert errors == sorted(errors, reverse=True)
    assert affine_quantize(weight, affine_parameters(weight, 8)).dtype == np.uint8
    assert affine_quantize(weight, affine_parameters(weight, 9)).dtype == np.uint16


@pytest.mark.parametrize(
    ("array", "options", "reason"),
    [
        (np.array([1.0, np.nan, 2.0]), {"bits": 8}, "NaN or infinity in 1 of 3 values"),
        (np.array([1.0, np.inf]), {"bits": 8}, "NaN or infinity"),
        (np.zeros((0, 3)), {"bits": 8}, "no values"),
        (np.ones(3), {"bits": 1}, "bits; found: 1; wanted: a whole number, 2 to 16"),
        (np.ones(3), {"bits": 17}, "bits"),
        (np.ones(3), {"bits": 8.0}, "bits"),
        (np.ones(3), {"bits": 8, "axis": 1}, "axis; found: 1"),
    ],
)
def test_what_has_no_scale_is_refused(array, options, reason):
    with pytest.raises(InputError, match=reason):
        fake_quantize(array, **options)


def test_the_case_in_the_docs():
    page = (Path(__file__).parents[3] / "docs" / "quantization.md").read_text(encoding="utf-8")
    rows = [
        [float(cell) for cell in line.strip("| ").split("|")]
        for line in re.findall(r"^\| -?\d.*", page, re.M)
    ]
    weights, first, second, cut, cut_back, rounded, rounded_back, levels, back = np.array(rows).T
    low, step = weights.min(), (weights.max() - weights.min()) / 15
    fractions = (weights - low) / (weights.max() - low)
    for shown, exact in (
        (first, fractions), (second, 15 * fractions), (cut, np.floor(15 * fractions + 1e-9)),
        (cut_back, cut * step + low), (rounded, np.rint(15 * fractions)), (rounded_back, rounded * step + low),
        (levels, affine_quantize(weights, affine_parameters(weights, 4))), (back, fake_quantize(weights, 4)),
    ):  # fmt: skip
        np.testing.assert_allclose(shown, exact, atol=5.1e-5)
    assert len(weights) == 5
    assert rounded_back[weights == 0] != 0
    assert back[weights == 0] == 0
    assert np.abs(cut_back - weights).max() > step / 2 >= np.abs(back - weights).max()
