from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    Stream,
    create_session,
    file_size,
    load_onnx,
    onnx_precision,
    open_onnx,
    read_signature,
    save_onnx,
    stored_tensor,
    write_onnx,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 12 MB of weights as one file and with external data; a small one, integers and typed data beside."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((1500, 1000)).astype(np.float32), "a"),
        numpy_helper.from_array(rng.standard_normal((1000, 1500)).astype(np.float32), "b"),
        numpy_helper.from_array(rng.standard_normal((1500, 3)).astype(np.float32), "c"),
        helper.make_tensor("d", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
        numpy_helper.from_array(np.array([-1, 3]), "shape"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"]), helper.make_node("MatMul", ["xa", "b"], ["xb"]),
        helper.make_node("MatMul", ["xb", "c"], ["xc"]), helper.make_node("Add", ["xc", "d"], ["xd"]),
        helper.make_node("Reshape", ["xd", "shape"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "large", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1500])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    path = tmp_path_factory.mktemp("large")
    save_onnx(model, path / "one.onnx")
    onnx.save(
        model, path / "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=100
    )
    return path


@pytest.mark.parametrize("name", ["one.onnx", "apart.onnx"])
def test_a_graph_without_its_weights(folder: Path, name: str) -> None:
    model = open_onnx(folder / name)
    assert model.ByteSize() < 100_000
    whole = {
        t.name: numpy_helper.to_array(t)
        for t in load_onnx(folder / name, external_data=True).graph.initializer
    }
    assert [t.name for t in model.graph.initializer] == list(whole)
    for tensor in model.graph.initializer:
        stored = stored_tensor(tensor, folder)
        np.testing.assert_array_equal(stored.rows(0, stored.shape[0]), whole[tensor.name])
        assert stored.size == whole[tensor.name].nbytes
    weight = stored_tensor(model.graph.initializer[0], folder)
    np.testing.assert_array_equal(weight.rows(700, 1200), whole["a"][700:1200])
    assert b"".join(weight.chunks()) == whole["a"].tobytes()
    assert read_signature(folder / name) == read_signature(folder / "one.onnx")
    assert onnx_precision(folder / name) == "fp32"
    there = sum(p.stat().st_size for p in folder.iterdir() if p.stem == name.removesuffix(".onnx"))
    assert file_size(folder / name) == there


def test_blocks_cover_every_row_once(folder: Path) -> None:
    weight = stored_tensor(open_onnx(folder / "one.onnx").graph.initializer[1], folder)
    for multiple in (1, 128):
        seen = [(begin, end) for begin, end, _ in weight.blocks(multiple)]
        assert seen[0][0] == 0
        assert seen[-1][1] == 1000
        assert all(one[1] == other[0] and one[1] % multiple == 0 for one, other in itertools.pairwise(seen))


@pytest.mark.parametrize("name", ["one.onnx", "apart.onnx"])
def test_what_is_written_is_what_was_read(folder: Path, name: str, tmp_path: Path) -> None:
    write_onnx(open_onnx(folder / name), tmp_path / "copy.onnx", folder=folder)
    assert (tmp_path / "copy.onnx").read_bytes() == (folder / "one.onnx").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["copy.onnx"]


def test_above_the_limit_weights_lie_beside(folder: Path, tmp_path: Path) -> None:
    write_onnx(open_onnx(folder / "one.onnx"), tmp_path / "m.onnx", folder=folder, one_file=1_000_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx").stat().st_size < 10_000
    x = np.random.default_rng(0).standard_normal((4, 1500)).astype(np.float32)
    want = create_session(folder / "one.onnx").run(None, {"x": x})[0]
    np.testing.assert_array_equal(create_session(tmp_path / "m.onnx").run(None, {"x": x})[0], want)
    offsets = [int(e.value) for t in open_onnx(tmp_path / "m.onnx").graph.initializer
               for e in t.external_data if e.key == "offset"]  # fmt: skip
    assert all(offset % 4096 == 0 for offset in offsets)


def test_streams_are_asked_for_their_bytes_when_written(tmp_path: Path, folder: Path) -> None:
    model = open_onnx(folder / "one.onnx")
    kept = [t for t in model.graph.initializer if t.name != "c"]
    header = TensorProto(name="c", dims=(1500, 3), data_type=TensorProto.FLOAT)
    model.graph.ClearField("initializer")
    model.graph.initializer.extend([*kept, header])
    values = np.arange(4500, dtype=np.float32).reshape(1500, 3)
    stream = Stream(values.nbytes, lambda: (row for row in values))
    write_onnx(model, tmp_path / "m.onnx", folder=folder, streams={"c": stream})
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    np.testing.assert_array_equal(found["c"], values)
    with pytest.raises(ValueError, match="c: 18000 bytes came, 18004 were announced"):
        write_onnx(model, tmp_path / "n.onnx", folder=folder, streams={"c": Stream(18004, stream.chunks)})


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_a_file_that_was_cut_off(folder: Path, share: float, tmp_path: Path) -> None:
    content = (folder / "one.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: math.floor(share * len(content))])
    with pytest.raises(InputError, match="no complete ONNX model"):
        open_onnx(tmp_path / "cut.onnx")


@pytest.mark.parametrize("location", ["/etc/hostname", "../other.bin", "a/../../other.bin"])
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    tensor = TensorProto(name="w", dims=(1,), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(InputError, match="wanted: a plain file inside"):
        stored_tensor(tensor, tmp_path)


def test_external_data_that_was_cut_off_or_lost(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "apart.onnx").write_bytes((folder / "apart.onnx").read_bytes())
    (tmp_path / "apart.bin").write_bytes((folder / "apart.bin").read_bytes()[:-8])
    last = stored_tensor(open_onnx(tmp_path / "apart.onnx").graph.initializer[2], tmp_path)
    with pytest.raises(InputError, match=r"apart\.bin ends too early"):
        last.rows(0, 1500)
    with pytest.raises(InputError, match=r"apart\.bin ends too early"):
        list(last.chunks())
    (tmp_path / "apart.bin").unlink()
    with pytest.raises(InputError, match=r"apart\.bin is missing"):
        stored_tensor(open_onnx(tmp_path / "apart.onnx").graph.initializer[0], tmp_path)
