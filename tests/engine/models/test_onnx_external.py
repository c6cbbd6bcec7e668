"""Weights in files beside an ONNX file."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    check_onnx,
    copy_onnx,
    create_session,
    external_files,
    model_files,
    onnx_sha256,
    onnx_stream,
    open_onnx,
    run,
    write_onnx,
)
from tests.engine.compression.graphs import initializers, language_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    (tmp_path / "apart" / "data").mkdir(parents=True)
    return language_model(
        tmp_path / "apart" / "m.onnx", save_as_external_data=True, location="data/w.bin", size_threshold=0
    )


def test_which_files_they_are(apart: Path, tmp_path: Path) -> None:
    assert external_files(apart) == ("data/w.bin",)
    assert model_files(apart) == (apart, apart.parent / "data" / "w.bin")
    assert external_files(language_model(tmp_path / "one.onnx")) == ()


def test_a_large_file_that_holds_its_weights_has_none_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_model_deploy.engine.models.onnx_file._SMALL", 0)
    path = language_model(tmp_path / "one.onnx")
    assert external_files(path) == ()
    assert onnx_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_copy_is_complete_under_another_name(apart: Path, tmp_path: Path) -> None:
    copied = copy_onnx(apart, tmp_path / "to" / "model.onnx")
    assert sorted(p.relative_to(copied.parent).as_posix() for p in copied.parent.rglob("*")) == [
        "data", "data/w.bin", "model.onnx",
    ]  # fmt: skip
    np.testing.assert_equal(initializers(copied), initializers(apart))


def test_a_copy_does_not_overwrite_its_own_weights(tmp_path: Path) -> None:
    renamed = language_model(
        tmp_path / "m.onnx", save_as_external_data=True, location="model.onnx", size_threshold=0
    )
    with pytest.raises(InputError, match="another name than that of the copy"):
        copy_onnx(renamed, tmp_path / "to" / "model.onnx")


def test_the_sha256_tells_weights_apart_that_share_a_graph(tmp_path: Path) -> None:
    paths = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        path = tmp_path / str(seed) / "model.onnx"
        language_model(path, seed=seed, save_as_external_data=True, location="w", size_threshold=0)
        paths.append(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert onnx_sha256(paths[0]) != onnx_sha256(paths[1])
    lines = [
        f"{hashlib.sha256((tmp_path / '0' / n).read_bytes()).hexdigest()}  {n}\n" for n in ("model.onnx", "w")
    ]
    assert onnx_sha256(paths[0]) == hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/hostname", "C:\\w", "a\\b", "./data/w.bin", "data//w.bin", "w\0", ""]
)
def test_a_location_outside_is_refused(apart: Path, location: str) -> None:
    model = onnx.load(apart, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    apart.write_bytes(model.SerializeToString())
    for use in (external_files, check_onnx):
        with pytest.raises(InputError, match=re.escape(f"location {location!r}")):
            use(apart)


def test_a_location_that_is_no_text_is_refused(apart: Path) -> None:
    apart.write_bytes(apart.read_bytes().replace(b"data/w.bin", b"data/\xff.bin"))
    with pytest.raises(InputError, match="a location that is no text"):
        check_onnx(apart)


def test_another_name_of_a_file_is_refused_from_outside_only(apart: Path) -> None:
    """What comes from outside may link to a secret; what is in the store has its sha256."""
    (apart.parent / "again").hardlink_to(apart.parent / "data" / "w.bin")
    with pytest.raises(InputError, match=r"data/w\.bin is a hard link"):
        check_onnx(apart)
    assert external_files(apart) == ("data/w.bin",)


def test_a_tensor_without_a_length_has_that_of_its_shape(tmp_path: Path) -> None:
    values = {"w": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.arange(3, dtype=np.float32)}
    (tmp_path / "w.bin").write_bytes(b"".join(v.tobytes() for v in values.values()))
    tensors, offset = [], 0
    for name, value in values.items():
        found = TensorProto(name=name, data_type=1, dims=value.shape, data_location=TensorProto.EXTERNAL)
        for key, text in (("location", "w.bin"), ("offset", str(offset))):
            found.external_data.add(key=key, value=text)
        tensors.append(found)
        offset += value.nbytes
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, ["n", 4])], [helper.make_tensor_value_info("y", 1, ["n", 3])], tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    write_onnx(open_onnx(tmp_path / "m.onnx"), tmp_path / "one.onnx", folder=tmp_path)
    np.testing.assert_equal(initializers(tmp_path / "one.onnx"), values)


def test_large_constants_that_are_no_initializers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = numpy_helper.from_array(np.ones((8, 4), np.float32), "constant")
    nodes = [
        helper.make_node("Constant", [], ["k"], value=value),
        helper.make_node("MatMul", ["x", "k"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", 1, ["n", 8])], [info("y", 1, ["n", 4])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    source, target = tmp_path / "m.onnx", tmp_path / "one.onnx"
    onnx.save(model, source, save_as_external_data=True, convert_attribute=True, size_threshold=0)
    write_onnx(open_onnx(source), target, folder=tmp_path)
    assert external_files(target) == ()
    x = np.ones((2, 8), np.float32)
    np.testing.assert_array_equal(run(create_session(target), {"x": x})["y"], np.full((2, 4), 8.0))
    monkeypatch.setattr(onnx_stream, "ONE_FILE", 100)
    with pytest.raises(InputError, match="no initializer of the main graph; found: 128 bytes"):
        write_onnx(open_onnx(source), target, folder=tmp_path)


def test_small_tensors_are_taken_into_the_graph(apart: Path, tmp_path: Path) -> None:
    """Shapes among them: the ONNX checker reads those in the graph only."""
    write_onnx(open_onnx(apart), tmp_path / "m.onnx", folder=apart.parent, one_file=0)
    check_onnx(tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph
    assert {t.name for t in graph.initializer if t.data_location == TensorProto.EXTERNAL} == {
        "table", "up_w", "gate_w", "down_w", "gemm_w",
    }  # fmt: skip
    np.testing.assert_equal(initializers(tmp_path / "m.onnx"), initializers(apart))
