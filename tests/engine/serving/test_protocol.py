from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_model_deploy.engine.serving.answers import Encoder
from airflow_model_deploy.engine.serving.datatypes import NUMPY_NAMES
from airflow_model_deploy.engine.serving.protocol import Decoder
from airflow_model_deploy.engine.serving.request import Request, RequestError
from airflow_model_deploy.engine.serving.servable import Servable, SessionSettings, Tensor

SESSION = SessionSettings(1, 1, "all", (), allow_spinning=False)


def servable(datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> Servable:
    return Servable(
        "tiny",
        "v1",
        "sha256:0",
        Path("model.onnx"),
        "fp32",
        (Tensor("x", datatype, shape),),
        (Tensor("y", datatype, shape), Tensor("z", "INT64", (-1,))),
        SESSION,
    )


def body(data: Any, datatype: str = "FP32", shape: Any = None, **more: Any) -> bytes:
    record = {"name": "x", "shape": shape or [1, 2], "datatype": datatype, "data": data}
    return json.dumps({"inputs": [record], **more}).encode()


def test_flat_and_nested_data_mean_the_same() -> None:
    flat = Decoder(servable()).decode(body([1, 2.5, 3, 4], shape=[2, 2]))
    nested = Decoder(servable()).decode(body([[1, 2.5], [3, 4]], shape=[2, 2]))
    np.testing.assert_array_equal(flat.inputs["x"], np.array([[1, 2.5], [3, 4]], dtype=np.float32))
    np.testing.assert_array_equal(flat.inputs["x"], nested.inputs["x"])
    assert flat.inputs["x"].dtype == np.float32
    assert flat.outputs == ("y", "z")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "not JSON"),
        (b"[1]", "wanted a JSON object"),
        (b'{"inputs": {}}', "'inputs': wanted a list"),
        (b'{"inputs": []}', r"missing \['x'\]"),
        (b'{"inputs": [3]}', r"inputs\[0\]"),
        (b'{"inputs": [{"name": "q"}]}', r"'q': the model has no such input; it takes \['x'\]"),
        (body([1, 2], datatype="FP64"), "datatype: found 'FP64', wanted 'FP32'"),
        (body([1, 2], shape=[2]), r"shape: found \[2\], wanted \[-1, 2\]"),
        (body([1, 2], shape=[1, 3]), r"shape: found \[1, 3\]"),
        (body([], shape=[0, 2]), "positive integers"),
        (body([1, 2], shape=[1.0, 2]), "positive integers"),
        (body([1, 2], shape="1x2"), "positive integers"),
        (body([1, 2, 3]), "3 elements, shape"),
        (body([[1], [2]]), r"nested as \[2, 1\]"),
        (body([[1, 2], [3]], shape=[2, 2]), "different lengths"),
        (body(["1", "2"]), "numbers only"),
        (body([None, 2]), "null"),
        (body([{}, 2]), "numbers only"),
        (body([1e39, 2]), "beyond the range of float32"),
        (body(7), "'data': wanted a list"),
        (b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32"}]}', "'data' is missing"),
        (b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [NaN, 1]}]}', "not JSON"),
        (body([1, 2], id=5), "'id'"),
        (body([1, 2], outputs=[{"name": "w"}]), r"'w': the model has no such output; it gives \['y', 'z'\]"),
        (body([1, 2], outputs=[{"name": "y"}, {"name": "y"}]), "appears twice"),
        (body([1, 2], outputs=["y"]), "'outputs'"),
        (body([1, 2], outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), "'binary_data': found 1"),
        (body([1, 2], outputs=[{"name": "y", "parameters": {"classification": 2}}]), "classification isn't"),
        (body([1, 2], parameters={"binary_data_output": "yes"}), "'binary_data_output': found 'yes'"),
        (body([1, 2], parameters=[]), "'parameters': wanted an object"),
        (body([1.0, True]), "true and false are none"),
        (body([[1, 2], 3], shape=[2, 2]), "2 elements|numbers only|nested"),
        (body(["a" * 100_000, *"b" * 9], shape=[5, 2]), "numbers only"),
        (body([1, 2], datatype="x" * 5000), r"datatype: found 'x{900,}.*\.\.\.$"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(raw: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        Decoder(servable()).decode(raw)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 1100


def test_an_input_given_twice_is_refused() -> None:
    record = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    with pytest.raises(RequestError, match="'x': appears twice"):
        Decoder(servable()).decode(json.dumps({"inputs": [record, record]}).encode())


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT8", [127, 128]),
        ("UINT8", [0, -1]),
        ("INT64", [1, 1.5]),
        ("INT32", [1, 2**31]),
        ("UINT64", [1, -1]),
        ("UINT64", [1, 2**64]),
        ("INT64", [True, False]),
        ("BOOL", [0, 1]),
    ],
)
def test_values_that_the_datatype_can_not_hold_are_refused_not_changed(
    datatype: str, data: list[Any]
) -> None:
    with pytest.raises(RequestError, match="'data'"):
        Decoder(servable(datatype)).decode(body(data, datatype))


def test_large_unsigned_integers_stay_exact() -> None:
    request = Decoder(servable("UINT64")).decode(body([1, 2**64 - 1], "UINT64"))
    assert request.inputs["x"].tolist() == [[1, 2**64 - 1]]


@given(data=st.data(), datatype=st.sampled_from(sorted(NUMPY_NAMES)))
def test_every_value_survives_the_way_out_and_in(data: st.DataObject, datatype: str) -> None:
    dtype = np.dtype(NUMPY_NAMES[datatype])
    if dtype.kind == "f":
        width = cast("Literal[16, 32, 64]", dtype.itemsize * 8)
        element: st.SearchStrategy[Any] = st.floats(width=width, allow_nan=False, allow_infinity=False)
    elif dtype.kind == "b":
        element = st.booleans()
    else:
        element = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    values = data.draw(st.lists(st.tuples(element, element), min_size=1, max_size=4))
    array = np.array(values, dtype=dtype)

    answer = json.loads(Encoder(servable(datatype)).encode(Request({}, ("y",)), {"y": array}).body)
    record = answer["outputs"][0]
    again = Decoder(servable(datatype)).decode(body(record["data"], datatype, record["shape"]))

    np.testing.assert_array_equal(again.inputs["x"], array)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_output_that_json_can_not_carry_is_refused_by_name(bad: float) -> None:
    array = np.array([[1, bad]], dtype=np.float32)
    with pytest.raises(RequestError, match="output 'y': 1 of 2 values are NaN or infinite") as caught:
        Encoder(servable()).encode(Request({}, ("y",), None), {"y": array})
    assert (caught.value.status, caught.value.reason) == (422, "output_not_finite")


def test_a_json_object_that_would_fill_the_memory_is_refused_before_it_is_decoded() -> None:
    start = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": ['
    for data, limit in ((b"1.5," * 600_000, 2**21), (b"[]," * 1_100_000, 2**30)):
        with pytest.raises(RequestError, match="send larger tensors as binary data") as caught:
            Decoder(servable(), limit).decode(start + data + b"1]}]}")
        assert (caught.value.status, caught.value.reason) == (413, "too_large")
