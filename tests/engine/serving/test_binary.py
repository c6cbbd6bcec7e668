"""The binary tensor extension, held against its specification by bytes that were laid out by hand."""

from __future__ import annotations

import http.client
import json
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_model_deploy.engine.serving.answers import Encoder
from airflow_model_deploy.engine.serving.datatypes import NUMPY_NAMES
from airflow_model_deploy.engine.serving.protocol import Decoder
from airflow_model_deploy.engine.serving.request import Answer, Request, RequestError
from airflow_model_deploy.engine.serving.servable import Servable, Tensor
from tests.engine.serving.servables import elementwise, expected, running, write_servable
from tests.engine.serving.test_protocol import SESSION

if TYPE_CHECKING:
    from tests.engine.serving.servables import Server

ROWS = [[0.1, -2.0, 3.0, 4.0], [5.5, 6.0, -7.25, 8.0]]


def servable(*inputs: Tensor) -> Servable:
    tensors = inputs or (Tensor("x", "FP32", (-1, 2)),)
    return Servable("tiny", "v1", "sha256:0", Path("m"), "fp32", tensors, tensors, SESSION)


def tensor(name: str, datatype: str, shape: list[int], size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def decode(model: Servable, document: dict[str, Any], tail: bytes, padding: int = 0) -> Request:
    head = json.dumps(document).encode() + b" " * padding
    return Decoder(model).decode(head + tail, len(head))


@pytest.mark.parametrize("padding", range(4))
def test_bytes_and_json_mix_in_one_request(padding: int) -> None:
    model = servable(
        Tensor("a", "FP32", (-1, 2)),
        Tensor("b", "INT16", (3,)),
        Tensor("c", "BOOL", (-1,)),
        Tensor("d", "FP16", (2,)),
    )
    document = {
        "inputs": [
            tensor("d", "FP16", [2], 4),
            {"name": "b", "datatype": "INT16", "shape": [3], "data": [1, -2, 3]},
            tensor("a", "FP32", [2, 2], 16),
            tensor("c", "BOOL", [3], 3),
        ]
    }
    tail = (
        struct.pack("<2e", 0.5, -2)
        + struct.pack("<4f", 1, 2.5, float("nan"), float("-inf"))
        + b"\x01\x00\x01"
    )
    request = decode(model, document, tail, padding)
    np.testing.assert_array_equal(request.inputs["a"], np.array([[1, 2.5], [np.nan, -np.inf]], np.float32))
    assert request.inputs["b"].tolist() == [1, -2, 3]
    assert request.inputs["c"].tolist() == [True, False, True]
    assert request.inputs["d"].tolist() == [0.5, -2]
    assert {name: str(array.dtype) for name, array in request.inputs.items()} == {
        "a": "float32",
        "b": "int16",
        "c": "bool",
        "d": "float16",
    }


def test_bytes_are_used_where_they_are() -> None:
    model = servable(Tensor("x", "UINT8", (-1,)))
    head = json.dumps({"inputs": [tensor("x", "UINT8", [1000], 1000)]}).encode()
    body = bytearray(head + bytes(1000))
    request = Decoder(model).decode(body, len(head))
    body[len(head)] = 7
    assert request.inputs["x"][0] == 7


def test_a_request_that_comes_again_has_its_own_values_and_checks() -> None:
    decoder = Decoder(servable())
    head = json.dumps({"inputs": [tensor("x", "FP32", [1, 2], 8)], "id": "a"}).encode()
    for value in (1.0, 2.0):
        request = decoder.decode(head + struct.pack("<2f", value, value), len(head))
        assert (request.inputs["x"].tolist(), request.id) == ([[value, value]], "a")
    with pytest.raises(RequestError, match="7 bytes follow"):
        decoder.decode(head + bytes(7), len(head))


@pytest.mark.parametrize(
    ("document", "tail", "message"),
    [
        ({"inputs": [tensor("x", "FP32", [1, 2], 8)]}, bytes(7), "7 bytes follow the JSON object"),
        ({"inputs": [tensor("x", "FP32", [1, 2], 8)]}, bytes(9), "9 bytes follow the JSON object"),
        (
            {"inputs": [tensor("x", "FP32", [1, 2], 4)]},
            bytes(4),
            r"'binary_data_size' is 4, FP32 of .* has 8",
        ),
        ({"inputs": [tensor("x", "FP32", [1, 2], -8)]}, b"", "'binary_data_size' is -8"),
        ({"inputs": [tensor("x", "FP32", [1, 2], "8")]}, bytes(8), "'binary_data_size' is '8'"),
        ({"inputs": [tensor("x", "FP32", [1, 2], True)]}, b"\0", "'binary_data_size' is True"),
        ({"inputs": [{**tensor("x", "FP32", [1, 2], 8), "data": [1, 2]}]}, bytes(8), "found both"),
        ({"inputs": [tensor("x", "FP32", [2**40, 2], 8)]}, bytes(8), "has 8796093022208 bytes"),
    ],
)
def test_bytes_that_do_not_fit_are_refused_by_name(
    document: dict[str, Any], tail: bytes, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        decode(servable(), document, tail)
    assert caught.value.status == 400


def test_a_header_that_is_longer_than_the_body_is_refused() -> None:
    with pytest.raises(RequestError, match="inference-header-content-length: 100"):
        Decoder(servable()).decode(b"{}", 100)


def test_a_bool_is_0_or_1() -> None:
    model = servable(Tensor("x", "BOOL", (-1,)))
    with pytest.raises(RequestError, match="byte 0 or 1"):
        decode(model, {"inputs": [tensor("x", "BOOL", [2], 2)]}, b"\x00\x02")


def test_bytes_alone_fill_the_open_size() -> None:
    request = Decoder(servable()).decode(struct.pack("<6f", *range(6)), 0)
    assert request.inputs["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert request.binary == frozenset({"x"})
    for size in (0, 4, 12):
        with pytest.raises(RequestError, match=f"0 with {size} bytes"):
            Decoder(servable()).decode(bytes(size), 0)


def split(answer: Answer) -> tuple[dict[str, Any], bytes]:
    length = answer.header_length or len(answer.body)
    return json.loads(answer.body[:length]), answer.body[length:]


@pytest.mark.parametrize(
    ("parameters", "outputs", "binary"),
    [
        ({}, None, []),
        ({"binary_data_output": True}, None, ["x", "z"]),
        (
            {"binary_data_output": True},
            [{"name": "z"}, {"name": "x", "parameters": {"binary_data": False}}],
            ["z"],
        ),
        ({}, [{"name": "x", "parameters": {"binary_data": True}}, {"name": "z"}], ["x"]),
    ],
)
def test_each_output_goes_back_as_it_was_asked_for(parameters: Any, outputs: Any, binary: list[str]) -> None:
    model = servable(Tensor("x", "FP32", (-1,)), Tensor("z", "INT64", (-1,)))
    records = [
        {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]},
        {"name": "z", "datatype": "INT64", "shape": [1], "data": [2]},
    ]
    document = {"inputs": records, "parameters": parameters, **({"outputs": outputs} if outputs else {})}
    request = Decoder(model).decode(json.dumps(document).encode())
    values: dict[str, Any] = {"x": np.array([1.5], np.float32), "z": np.array([-2], np.int64)}
    answer = Encoder(model).encode(request, {name: values[name] for name in request.outputs})

    head, tail = split(answer)
    assert [record["name"] for record in head["outputs"]] == list(request.outputs)
    assert (answer.header_length is None) is (not binary)
    wanted = b"".join(
        {"x": struct.pack("<f", 1.5), "z": struct.pack("<q", -2)}[n] for n in request.outputs if n in binary
    )
    assert tail == wanted
    for record in head["outputs"]:
        assert ("data" in record) is (record["name"] not in binary)
        assert record.get("parameters", {}).get("binary_data_size") == (
            {"x": 4, "z": 8}[record["name"]] if record["name"] in binary else None
        )


@given(data=st.data(), datatype=st.sampled_from(sorted(NUMPY_NAMES)))
def test_every_bit_survives_the_way_out_and_in(data: st.DataObject, datatype: str) -> None:
    dtype = np.dtype(NUMPY_NAMES[datatype])
    raw = data.draw(st.binary(min_size=2 * dtype.itemsize, max_size=2 * dtype.itemsize))
    raw = bytes(b & 1 for b in raw) if datatype == "BOOL" else raw
    array = np.frombuffer(raw, dtype)
    model = servable(Tensor("x", datatype, (-1,)))
    head, tail = split(Encoder(model).encode(Request({}, ("x",), None, frozenset({"x"})), {"x": array}))
    assert tail == (raw if sys.byteorder == "little" else array.byteswap().tobytes())
    again = decode(model, {"inputs": [tensor("x", datatype, head["outputs"][0]["shape"], len(tail))]}, tail)
    assert again.inputs["x"].tobytes() == raw


def post(server: Server, body: bytes, length: int | None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.ready["port"], timeout=10)
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    connection.request("POST", "/v2/models/tiny/infer", body, headers)
    response = connection.getresponse()
    answer = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    connection.close()
    return answer


def test_over_http_bytes_give_what_json_gives(server: Server) -> None:
    head = json.dumps(
        {
            "inputs": [tensor("x", "FP32", [2, 4], 32)],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    status, headers, body = post(server, head + np.array(ROWS, "<f4").tobytes(), len(head))
    length = int(headers["inference-header-content-length"])
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert json.loads(body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 24}
    np.testing.assert_allclose(np.frombuffer(body[length:], "<f4").reshape(2, 3), expected(ROWS), rtol=1e-5)


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "9" * 30])
def test_a_header_that_is_no_length_is_refused(server: Server, length: Any) -> None:
    status, headers, body = post(server, b"{}", length)
    assert (status, headers["content-type"]) == (400, "application/json")
    assert "inference-header-content-length" in json.loads(body)["error"]


def test_nan_goes_in_and_out_as_bytes_and_never_out_as_json(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s", elementwise("Neg"))
    with running(folder, tmp_path / "work") as server:
        head = json.dumps({"inputs": [tensor("x", "FP32", [2], 8)]}).encode()
        raw = struct.pack("<2f", float("nan"), float("inf"))
        status, _, body = post(server, head + raw, len(head))
        assert (status, b"2 of 2 values are NaN or infinite" in body) == (422, True)
        status, _, body = post(server, raw, 0)
        values = np.frombuffer(body[-8:], "<f4")
        assert status == 200
        assert np.isnan(values[0])
        assert values[1] == -np.inf
