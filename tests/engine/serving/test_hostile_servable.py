"""Servables made to reach further than their folder, to run code, or to change after they were listed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.serving import servable
from airflow_model_deploy.engine.serving.servable import ServableRefusedError
from airflow_model_deploy.engine.serving.session import open_session
from tests.engine.serving.servables import BIAS, REPOSITORY, WEIGHT, edit, entry, tensor, write_servable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = WEIGHT.nbytes


def with_data(
    folder: Path, keys: dict[str, str | None] | None = None, *, domain: str = "", op_type: str = "Gemm"
) -> Path:
    """Write a servable of x @ W + b, W in weights.bin; `keys` replace what the graph says of it."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHT.shape)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (
        {"location": "weights.bin", "offset": "0", "length": str(SIZE)} | (keys or {})
    ).items():
        if value is not None:
            weight.external_data.add(key=key, value=value)

    def write(path: Path) -> dict[str, Any]:
        graph = helper.make_graph(
            [helper.make_node(op_type, ["x", "w", "b"], ["y"], domain=domain)], "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
            [weight, numpy_helper.from_array(BIAS, "b")],
        )  # fmt: skip
        sets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        path.write_bytes(helper.make_model(graph, opset_imports=sets, ir_version=8).SerializeToString())
        return {"inputs": [tensor("x", "FP32", [-1, 4])], "outputs": [tensor("y", "FP32", [-1, 3])]}

    write_servable(folder, write)
    add(folder, "weights.bin", WEIGHT.tobytes())
    return folder


def add(folder: Path, path: str, content: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    edit(folder, lambda document: document["files"].append(entry(folder, path)))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ServableRefusedError, match=message):
        servable.load(folder)


def test_data_beside_the_model_is_served(tmp_path: Path) -> None:
    session = open_session(servable.load(with_data(tmp_path / "s")))
    x = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    np.testing.assert_allclose(session.run({"x": x}, ("y",))["y"], x @ WEIGHT + BIAS, rtol=1e-5)


@pytest.mark.parametrize("length", [str(SIZE), None])
def test_so_is_data_in_a_folder_of_the_model_s_own(tmp_path: Path, length: str | None) -> None:
    folder = with_data(tmp_path / "s", {"location": "data/w.bin", "offset": "64", "length": length})
    add(folder, "data/w.bin", bytes(64) + WEIGHT.tobytes())
    x = np.ones((1, 4), np.float32)
    answer = open_session(servable.load(folder)).run({"x": x}, ("y",))["y"]
    np.testing.assert_allclose(answer, x @ WEIGHT + BIAS, rtol=1e-5)


@pytest.mark.parametrize(
    "location",
    ["../outside.bin", "a/../../outside.bin", "{outside}", "./weights.bin", "a//b", "C:\\w.bin", "\\w"],
)
def test_data_outside_of_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_bytes(WEIGHT.tobytes())
    folder = with_data(tmp_path / "s", {"location": location.format(outside=outside)})
    refused(folder, "model.onnx: external data of tensor 'w': .* may not leave the servable's folder")


@pytest.mark.parametrize("location", ["other.bin", "servable.json", "*/_ORT_MEM_ADDR_/*"])
def test_data_that_is_not_listed_is_refused(tmp_path: Path, location: str) -> None:
    folder = with_data(tmp_path / "s", {"location": location})
    refused(folder, r"external data of tensor 'w': '.*' is not in files")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"offset": "4"}, f"bytes 4 to {SIZE + 4} of 'weights.bin', which has {SIZE}"),
        ({"length": str(SIZE + 1)}, f"bytes 0 to {SIZE + 1} of 'weights.bin', which has {SIZE}"),
        ({"offset": "4096", "length": None}, "bytes 4096 to 4096"),
        ({"offset": "-4"}, "offset '-4', wanted a whole number"),
        ({"location": None}, "with no location"),
        ({"prepacked_0": "x|0;4;1"}, "prepacked_0"),
    ],
)
def test_data_beyond_its_file_is_refused(tmp_path: Path, keys: dict[str, str | None], message: str) -> None:
    refused(with_data(tmp_path / "s", keys), message)


def test_data_behind_a_link_is_refused(tmp_path: Path) -> None:
    folder = with_data(tmp_path / "s")
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    refused(folder, "weights.bin: is a symbolic link")


def test_a_changed_byte_of_the_data_is_refused(tmp_path: Path) -> None:
    folder = with_data(tmp_path / "s")
    content = bytearray((folder / "weights.bin").read_bytes())
    content[7] ^= 1
    (folder / "weights.bin").write_bytes(content)
    refused(folder, "weights.bin: sha256 is")


def test_a_second_name_of_a_file_is_no_matter_but_what_changes_through_it_is_seen(tmp_path: Path) -> None:
    """Stores link equal files to save space; the content is still that which was listed."""
    folder = with_data(tmp_path / "s")
    os.link(folder / "weights.bin", tmp_path / "other-name")
    open_session(servable.load(folder))
    (tmp_path / "other-name").write_bytes(bytes(SIZE))
    refused(folder, "weights.bin: sha256 is")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.mkfifo(path), "weights.bin: is not a regular file"),
        (lambda path: path.mkdir(), "weights.bin: is not a regular file"),
    ],
)
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    folder = with_data(tmp_path / "s")
    (folder / "weights.bin").unlink()
    make(folder / "weights.bin")
    refused(folder, message)


@pytest.mark.parametrize(
    ("domain", "op_type", "named"),
    [
        ("evil.ops", "Gemm", "evil.ops:Gemm"),
        ("ai.onnx.contrib", "PyOp", "ai.onnx.contrib:PyOp"),
        ("com.microsoft.", "Gemm", "com.microsoft.:Gemm"),
        ("com.microsoft", "EPContext", "com.microsoft:EPContext"),
    ],
)
def test_operators_of_other_libraries_are_refused_by_name(
    tmp_path: Path, domain: str, op_type: str, named: str
) -> None:
    folder = with_data(tmp_path / "s", domain=domain, op_type=op_type)
    refused(folder, f"uses operators that a stock ONNX Runtime doesn't have: {named}")


def test_an_operator_that_the_model_defines_itself_is_served(tmp_path: Path) -> None:
    folder = with_data(tmp_path / "s", domain="own", op_type="Linear")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.functions.append(
        helper.make_function(
            "own", "Linear", ["x", "w", "b"], ["y"], [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
            [helper.make_opsetid("", 17)],
        )
    )  # fmt: skip
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    edit(folder, lambda document: document["files"].__setitem__(0, entry(folder, "model.onnx")))
    open_session(servable.load(folder))


ELF = b"\x7fELF\x02\x01\x01" + bytes(60)
PE = b"MZ" + bytes(58) + struct.pack("<I", 128) + bytes(64) + b"PE\0\0"
MACH_O = b"\xcf\xfa\xed\xfe" + bytes(60)
FAT = b"\xca\xfe\xba\xbe\x00\x00\x00\x02" + bytes(60)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("libops.so", b"anything"),
        ("libops.so.1.2", b"anything"),
        ("ops/custom.DLL", b"anything"),
        ("libops.dylib", b"anything"),
        ("ops.pyd", b"anything"),
        ("weights.dat", ELF),
        ("weights.dat", PE),
        ("weights.dat", MACH_O),
        ("weights.dat", FAT),
    ],
)
def test_a_library_among_the_files_is_refused_by_name(tmp_path: Path, path: str, content: bytes) -> None:
    folder = write_servable(tmp_path / "s")
    add(folder, path, content)
    refused(folder, f"{path}: is a program or library, such as one of custom operators")


@pytest.mark.parametrize("content", [b"MZ" + bytes(100), b"MZ", b"\xca\xfe\xba\xbe" * 30, b""])
def test_weights_that_begin_like_a_library_by_chance_are_not_one(tmp_path: Path, content: bytes) -> None:
    folder = write_servable(tmp_path / "s")
    add(folder, "weights.dat", content)
    servable.load(folder)


def test_the_server_says_in_one_line_what_it_refuses_and_ends(tmp_path: Path) -> None:
    folder = with_data(tmp_path / "s", {"location": "../outside.bin"})
    command = [sys.executable, "-m", "airflow_model_deploy.engine.serving", "--servable", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 3
    last = done.stderr.strip().splitlines()[-1]
    assert "servable refused: model.onnx: external data of tensor 'w': '../outside.bin' may not leave" in last
