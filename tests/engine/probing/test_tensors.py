from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.probing import datatype, from_tensor, numpy_name, to_tensor

NAMES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip


@pytest.mark.parametrize(("oip", "name"), NAMES.items())
def test_every_datatype_of_the_protocol_has_its_numpy_type(oip: str, name: str) -> None:
    assert datatype(name) == oip
    assert numpy_name(oip) == name


@given(st.data())
def test_a_tensor_survives_json_bit_for_bit(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(sorted(NAMES.values()))))
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    array = data.draw(hnp.arrays(dtype, shapes, elements=elements))
    back = from_tensor(json.loads(json.dumps(to_tensor("x", array), allow_nan=False)))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_text_travels_as_bytes() -> None:
    tensor = to_tensor("t", np.array([["a", "ß"]]))
    assert (tensor["datatype"], tensor["data"]) == ("BYTES", ["a", "ß"])
    assert from_tensor(tensor).tolist() == [["a", "ß"]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="'x' holds NaN or infinity"):
        to_tensor("x", np.array([1.0, value], dtype=np.float32))


def test_null_among_floats_is_nan() -> None:
    got = from_tensor({"name": "y", "shape": [2], "datatype": "FP32", "data": [1.5, None]})
    assert got[0] == 1.5
    assert np.isnan(got[1])


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [3]},
        {"shape": [-1]},
        {"shape": None},
        {"datatype": "FP8"},
        {"datatype": "UINT8", "data": [1, 300]},
        {"datatype": "INT64", "data": [1, None]},
        {"data": ["a", "b"]},
        {"data": 3},
    ],
)
def test_a_malformed_tensor_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        from_tensor({"name": "y", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]} | change)


def test_a_type_without_name_is_refused() -> None:
    with pytest.raises(InputError, match="complex64"):
        datatype(np.complex64)
