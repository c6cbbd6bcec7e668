"""The protocol's public clients, tritonclient and KServe's, against the real server process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.engine.serving import clients
from tests.engine.serving.servables import running, save, start, tensor, write_servable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ELEMENTS = {
    "BOOL": (TensorProto.BOOL, "bool"),
    "INT8": (TensorProto.INT8, "int8"),
    "INT16": (TensorProto.INT16, "int16"),
    "INT32": (TensorProto.INT32, "int32"),
    "INT64": (TensorProto.INT64, "int64"),
    "UINT8": (TensorProto.UINT8, "uint8"),
    "UINT16": (TensorProto.UINT16, "uint16"),
    "UINT32": (TensorProto.UINT32, "uint32"),
    "UINT64": (TensorProto.UINT64, "uint64"),
    "FP16": (TensorProto.FLOAT16, "float16"),
    "FP32": (TensorProto.FLOAT, "float32"),
    "FP64": (TensorProto.DOUBLE, "float64"),
}
WAYS = ["json to json", "json to binary", "binary to json", "binary to binary", "mixed", "default"]
CLIENTS = ["tritonclient", "kserve"]
# What every refusal must name, so that the caller can act on it.
REFUSALS = {
    "model": (404, "other"),
    "version": (404, "v2"),
    "missing input": (400, "x_int8"),
    "unknown input": (400, "x_extra"),
    "unknown output": (400, "y_extra"),
    "datatype": (400, "x_fp32", "FP64", "FP32"),
    "rank": (400, "x_fp32", "-1, 2"),
    "width": (400, "x_fp32", "-1, 2"),
    "bytes in binary": (400, "x_fp32", "BYTES", "FP32"),
    "bytes in json": (400, "x_fp32", "BYTES", "FP32"),
    "size": (400, "x_fp32"),
    "shared memory in": (400, "x_fp32", "shared"),
    "shared memory out": (400, "y_fp32", "shared"),
    "classification": (400, "y_fp32", "classification"),
    "configuration": (404, "config"),
    "repository": (404, "repository"),
    "load": (404, "repository"),
}


def everything(path: Path) -> dict[str, Any]:
    """y = x for every datatype that protocol and runtime share, any number of rows of two."""
    pairs = [(f"x_{name.lower()}", f"y_{name.lower()}", element) for name, (element, _) in ELEMENTS.items()]
    save(
        helper.make_graph(
            [helper.make_node("Identity", [x], [y]) for x, y, _ in pairs],
            "everything",
            [helper.make_tensor_value_info(x, element, ["n", 2]) for x, _, element in pairs],
            [helper.make_tensor_value_info(y, element, ["n", 2]) for _, y, element in pairs],
        ),
        path,
    )
    return {
        "inputs": [tensor(f"x_{name.lower()}", name, [-1, 2]) for name in ELEMENTS],
        "outputs": [tensor(f"y_{name.lower()}", name, [-1, 2]) for name in ELEMENTS],
    }


def extremes(name: str) -> np.ndarray[Any, Any]:
    """Four rows: the largest and smallest numbers of a type, and those that are lost when it is taken for another."""
    dtype = np.dtype(ELEMENTS[name][1])
    if dtype.kind == "b":
        return np.array([[True, False], [False, False], [True, True], [False, True]])
    if dtype.kind == "f":
        info = np.finfo(dtype)
        values = [info.max, info.min, info.tiny, info.smallest_subnormal, -0.0, 0.1, 1 / 3, -12.0]
        return np.array(values, dtype=dtype).reshape(4, 2)
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    return np.array([low, high, 0, 1, high - 1, low + 1, high // 3, 42], dtype=dtype).reshape(4, 2)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray[Any, Any]]:
    return {f"x_{name.lower()}": extremes(name) for name in ELEMENTS}


@pytest.fixture(scope="module")
def answers(
    arrays: dict[str, np.ndarray[Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Any]]]:
    """What each client gave for every scenario."""
    python = clients.interpreter()
    work = tmp_path_factory.mktemp("everything")
    folder = write_servable(work / "servable", everything, name="everything")
    with running(folder, work) as server:
        yield {client: clients.ask(python, client, server.url, arrays) for client in CLIENTS}
        assert "Traceback" not in server.log.read_text()


def same(got: dict[str, Any], wanted: np.ndarray[Any, Any]) -> None:
    array = clients.unpack(got)
    assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
    # Bit for bit: NaN, -0.0 and subnormal numbers are not equal to what they are confused with.
    assert array.tobytes() == wanted.tobytes(), f"found {array.tolist()}, wanted {wanted.tolist()}"


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", CLIENTS)
def test_every_datatype_comes_back_bit_for_bit(
    answers: dict[str, Any], arrays: dict[str, Any], client: str, way: str, name: str
) -> None:
    answer = answers[client][way]
    assert "error" not in answer, answer
    assert answer["model"] == ["everything", "v1"]
    assert answer["datatypes"][f"y_{name.lower()}"] == name
    same(answer["tensors"][f"y_{name.lower()}"], arrays[f"x_{name.lower()}"])


@pytest.mark.parametrize("client", CLIENTS)
def test_outputs_come_in_the_encoding_that_was_asked_for(answers: dict[str, Any], client: str) -> None:
    every = sorted(f"y_{name.lower()}" for name in ELEMENTS)
    given = answers[client]
    assert given["binary to binary"]["binary"] == every
    assert given["json to binary"]["binary"] == every
    assert given["binary to json"]["binary"] == []
    assert given["json to json"]["binary"] == []


def test_each_output_has_its_own_encoding(answers: dict[str, Any]) -> None:
    given = answers["tritonclient"]
    assert given["mixed"]["binary"] == sorted(
        f"y_{name.lower()}" for name in ELEMENTS if name not in ("INT8", "FP32", "BOOL")
    )
    # It asks with binary_data_output where no output is named.
    assert len(given["default"]["binary"]) == len(ELEMENTS)


def test_binary_for_all_outputs_by_one_parameter(answers: dict[str, Any], arrays: dict[str, Any]) -> None:
    answer = answers["kserve"]["parameters"]
    assert len(answer["binary"]) == len(ELEMENTS)
    same(answer["tensors"]["y_fp16"], arrays["x_fp16"])


@pytest.mark.parametrize("client", CLIENTS)
def test_a_crowd_of_requests_gets_each_its_own_answer(
    answers: dict[str, Any], arrays: dict[str, Any], client: str
) -> None:
    crowd = answers[client]["crowd"]
    assert len(crowd) == 64
    for i, answer in enumerate(crowd):
        assert answer["id"] == str(i)
        for name, array in arrays.items():
            same(answer["tensors"]["y" + name[1:]], np.roll(array, i, axis=0)[: 1 + i % 3])


@pytest.mark.parametrize("client", CLIENTS)
def test_health_and_readiness(answers: dict[str, Any], client: str) -> None:
    given = answers[client]
    assert (given["live"], given["ready"]) == (True, True)
    assert all(given["model ready"])
    assert not any(given["other ready"])


def test_metadata(answers: dict[str, Any]) -> None:
    given = answers["tritonclient"]
    assert "binary_tensor_data" in given["server"]["extensions"]
    about, of_version = given["metadata"]
    assert about == of_version
    assert (about["name"], about["versions"], about["platform"]) == ("everything", ["v1"], "onnx_onnxruntime")
    assert about["inputs"] == [tensor(f"x_{name.lower()}", name, [-1, 2]) for name in ELEMENTS]
    assert about["outputs"] == [tensor(f"y_{name.lower()}", name, [-1, 2]) for name in ELEMENTS]


@pytest.mark.parametrize("client", CLIENTS)
def test_ids_come_back(answers: dict[str, Any], client: str) -> None:
    assert answers[client]["id"]["id"] == "r-1"


def test_one_output_is_all_that_comes_when_one_is_asked_for(answers: dict[str, Any]) -> None:
    assert list(answers["tritonclient"]["id"]["tensors"]) == ["y_bool"]


@pytest.mark.parametrize("scenario", ["version", "parameters", "gzip wanted", "afterwards"])
def test_what_changes_nothing_changes_nothing(
    answers: dict[str, Any], arrays: dict[str, Any], scenario: str
) -> None:
    answer = answers["tritonclient"][scenario]
    assert "error" not in answer, answer
    for name, array in arrays.items():
        same(answer["tensors"]["y" + name[1:]], array)


def test_inputs_with_another_number_of_rows_each(answers: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Nothing in the signature ties the rows of two inputs together: a right answer, or a refusal."""
    answer = answers["tritonclient"]["rows differ"]
    if "error" in answer:
        assert answer["status"] == 400
        return
    same(answer["tensors"]["y_fp32"], arrays["x_fp32"][:1])
    same(answer["tensors"]["y_fp64"], arrays["x_fp64"])


@pytest.mark.parametrize("scenario", ["gzip sent", "deflate sent"])
def test_a_compressed_request_is_understood_or_refused_by_name(
    answers: dict[str, Any], arrays: dict[str, Any], scenario: str
) -> None:
    answer = answers["tritonclient"][scenario]
    if "error" in answer:
        assert answer["status"] == 415
        assert "encoding" in answer["error"]
    else:
        same(answer["tensors"]["y_fp32"], arrays["x_fp32"])


@pytest.mark.parametrize("what", REFUSALS)
def test_refusals_name_what_is_wrong(answers: dict[str, Any], what: str) -> None:
    status, *words = REFUSALS[what]
    for client in CLIENTS:
        if what not in answers[client]["refused"]:
            assert client == "kserve"
            continue
        answer = answers[client]["refused"][what]
        assert "error" in answer, f"{client} got an answer"
        assert answer["status"] == status, answer
        for word in words:
            assert str(word) in answer["error"], answer


def test_a_model_of_strings_is_refused_before_it_serves(tmp_path: Path) -> None:
    def strings(path: Path) -> dict[str, Any]:
        values = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in "xy"]
        save(
            helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "s", values[:1], values[1:]), path
        )
        return {"inputs": [tensor("x", "BYTES", [-1])], "outputs": [tensor("y", "BYTES", [-1])]}

    process = start(write_servable(tmp_path / "servable", strings), tmp_path)
    assert process.wait(20) == 3
    (line,) = (tmp_path / "server.log").read_text().splitlines()
    assert "BYTES" in line
