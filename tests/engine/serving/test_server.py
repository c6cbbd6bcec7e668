from __future__ import annotations

import http.client
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.engine.serving.servables import (
    Server,
    elementwise,
    expected,
    infer_body,
    request,
    running,
    write_servable,
)

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [[0.1, -2.0, 3.0, 4.0], [5.5, 6.0, -7.25, 8.0]]


def test_an_answer_is_what_the_runtime_gives_in_process(server: Server, linear_folder: Path) -> None:
    status, answer = request(f"{server.url}/v2/models/tiny/infer", infer_body(ROWS))

    assert status == 200
    assert (answer["model_name"], answer["model_version"]) == ("tiny", "v1")
    session = ort.InferenceSession(str(linear_folder / "model.onnx"))
    y, label = session.run(None, {"x": np.array(ROWS, dtype=np.float32)})
    got = {output["name"]: output for output in answer["outputs"]}
    assert got["y"]["datatype"], got["y"]["shape"] == ("FP32", [2, 3])
    np.testing.assert_array_equal(np.array(got["y"]["data"], dtype=np.float32).reshape(2, 3), y)
    assert (got["label"]["datatype"], got["label"]["data"]) == ("INT64", label.tolist())
    # And neither of them is wrong together with the other.
    np.testing.assert_allclose(y, expected(ROWS), rtol=1e-5)


def test_outputs_are_selected_and_the_id_comes_back(server: Server) -> None:
    body = {**infer_body(ROWS), "id": "r-1", "outputs": [{"name": "label"}]}
    status, answer = request(f"{server.url}/v2/models/tiny/versions/v1/infer", body)
    assert (status, answer["id"]) == (200, "r-1")
    assert [output["name"] for output in answer["outputs"]] == ["label"]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/tiny/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/tiny/versions/v1/ready", {"name": "tiny", "ready": True}),
    ],
)
def test_health(server: Server, path: str, wanted: Any) -> None:
    assert request(server.url + path) == (200, wanted)


def test_metadata(server: Server) -> None:
    status, about = request(f"{server.url}/v2")
    assert (status, about["name"], about["extensions"]) == (200, "model-server", ["binary_tensor_data"])
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/v1"):
        assert request(server.url + path) == (
            200,
            {
                "name": "tiny",
                "versions": ["v1"],
                "platform": "onnx_onnxruntime",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
                "outputs": [
                    {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
                    {"name": "label", "datatype": "INT64", "shape": [-1]},
                ],
            },
        )


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/", None, 404, "no such path"),
        ("/v2/health/well", None, 404, "no such path"),
        ("/v2/models/other", None, 404, "'other': not served here, 'tiny' is"),
        ("/v2/models/tiny/versions/v2/infer", {}, 404, "'v2': not served here, 'v1' is"),
        ("/v2/models/tiny/versions", None, 404, "no such path"),
        ("/v2/models/tiny/infer", None, 405, "wanted POST"),
        ("/v2/health/live", {}, 405, "wanted GET"),
        ("/v2/models/tiny/infer", {"inputs": []}, 400, "missing"),
        ("/v2/models/tiny/infer", b"\x00", 400, "not JSON"),
        ("/v2/models/tiny/infer", b" " * 10001, 413, "larger than 10000 bytes"),
    ],
)
def test_errors_say_what_to_do(server: Server, path: str, body: Any, status: int, message: str) -> None:
    got, answer = request(server.url + path, body)
    assert got == status
    assert message in answer["error"]


def test_a_large_body_without_a_length_is_refused_too(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.ready["port"], timeout=10)
    connection.request(
        "POST", "/v2/models/tiny/infer", body=(b" " * 1000 for _ in range(20)), encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_an_encoding_that_the_server_does_not_speak_is_refused_by_name(server: Server) -> None:
    gzip = {"Content-Encoding": "gzip"}
    status, answer = request(f"{server.url}/v2/models/tiny/infer", infer_body(ROWS), gzip)
    assert status == 415
    assert "isn't supported" in answer["error"]


def test_nan_is_never_null(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s", elementwise("Log"))
    with running(folder, tmp_path / "work") as server:
        body = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, -1.0]}]}
        status, answer = request(f"{server.url}/v2/models/tiny/infer", body)
        assert status == 422
        assert "output 'y': 1 of 2 values are NaN or infinite" in answer["error"]
        body["inputs"][0]["data"] = [1.0, 1.0]
        assert request(f"{server.url}/v2/models/tiny/infer", body)[0] == 200


def test_neither_payloads_nor_lines_without_end_reach_the_log(server: Server) -> None:
    request(f"{server.url}/v2/models/tiny/infer", infer_body([[1234.5678, 1, 1, 1]]))
    request(f"{server.url}/v2/models/tiny/infer", b'{"secret-word": ')
    log = server.log.read_text()
    assert "1234.5678" not in log
    assert "secret-word" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert any((line["event"], line.get("model")) == ("loaded", "tiny") for line in lines)


def test_connections_are_kept_alive(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.ready["port"], timeout=10)
    for _ in range(3):
        connection.request("POST", "/v2/models/tiny/infer", json.dumps(infer_body(ROWS)))
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers.get("connection") != "close"
        response.read()
    connection.close()


def test_the_answer_says_json(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/v2", timeout=10) as response:
        assert response.headers["content-type"] == "application/json"
