from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    SessionSettings,
    check_onnx,
    create_session,
    file_size,
    onnx_precision,
    read_signature,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto] | None = None,
    shape: Sequence[int | str | None] = ("batch", 4),
    weights: dict[str, np.ndarray] | None = None,
    external: str | None = None,
) -> Path:
    weights = {"w": np.eye(4, dtype=np.float32)} if weights is None else weights
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    opsets = [
        helper.make_opsetid("", 20),
        helper.make_opsetid("my.domain", 1),
        helper.make_opsetid("com.microsoft", 1),
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if external:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def relocate(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        (("n", 4), ("n", 4)),
        ((None, 4), ("batch", 4)),
        ((2, 4), (2, 4)),
        (("batch", None), ("batch", "x_dim1")),
    ],
)
def test_signature(shape: tuple, found: tuple, tmp_path: Path) -> None:
    signature = read_signature(write(tmp_path / "m.onnx", shape=shape))
    assert [(t.name, t.shape, t.dtype) for t in signature.inputs] == [("x", found, "float32")]
    assert [t.name for t in signature.outputs] == ["y"]


def test_a_good_file_passes_with_external_data_too(tmp_path: Path) -> None:
    check_onnx(write(tmp_path / "one.onnx"))
    path = write(tmp_path / "two.onnx", external="two.data")
    check_onnx(path)
    assert file_size(path) == path.stat().st_size + (tmp_path / "two.data").stat().st_size


@pytest.mark.parametrize(
    "location", ["/etc/hostname", "../m.data", "a/../../m.data", "C:\\m.data", "..\\m.data", ""]
)
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", external="m.data")
    relocate(path, location)
    with pytest.raises(InputError, match=r"external data.*inside the model's folder"):
        check_onnx(path)


def test_external_data_that_is_a_link_or_missing_or_cut_off(tmp_path: Path) -> None:
    path, data = write(tmp_path / "m.onnx", external="m.data"), tmp_path / "m.data"
    data.rename(tmp_path / "real.data")
    with pytest.raises(InputError, match=r"m\.data is missing"):
        check_onnx(path)
    data.symlink_to("real.data")
    with pytest.raises(InputError, match="symbolic link"):
        check_onnx(path)
    data.unlink()
    os.link(tmp_path / "real.data", data)
    with pytest.raises(InputError, match="hard link"):
        check_onnx(path)
    data.unlink()
    data.write_bytes(b"short")
    with pytest.raises(InputError, match=r"5 bytes, of which 0\.\.64 are wanted"):
        check_onnx(path)


def test_external_data_hidden_in_an_attribute_is_found_too(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.eye(4, dtype=np.float32), "c")
    onnx.external_data_helper.set_external_data(tensor, location="../secret")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    path = write(tmp_path / "m.onnx", [constant, helper.make_node("MatMul", ["x", "w"], ["y"])], weights={})
    with pytest.raises(InputError, match=r"'\.\./secret'"):
        check_onnx(path)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([helper.make_node("Whirl", ["x"], ["y"], domain="my.domain")], "Whirl"),
        ([helper.make_node("Whirl", ["x"], ["y"])], "Whirl"),
        ([helper.make_node("MatMul", ["x"], ["y"])], "MatMul|input"),
        ([helper.make_node("MatMul", ["x", "v"], ["y"])], "v"),
        ([helper.make_node("Reshape", ["x", "w"], ["y"])], "Reshape|type|shape"),
    ],
)
def test_graphs_that_cannot_run_are_refused_by_name(nodes: list, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        check_onnx(write(tmp_path / "m.onnx", nodes))


@pytest.mark.parametrize("content", [b"", b"hello, not a protobuf at all", None])
def test_files_that_are_no_model(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    whole = write(tmp_path / "good.onnx").read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match=r"m\.onnx"):
        check_onnx(path)
    with pytest.raises(InputError, match="no such file"):
        check_onnx(tmp_path / "nowhere.onnx")


def test_precision_by_what_the_operators_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    eye = np.eye(4, dtype=np.float32)
    dequantize = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"])
    int8 = {"q": eye.astype(np.int8), "s": np.float32(1), "z": np.int8(0)}
    first = helper.make_node("MatMul", ["x", "w"], ["h"])
    second = helper.make_node("MatMul", ["h", "v"], ["y"])
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert onnx_precision(write(path)) == "fp32"
    assert onnx_precision(write(path, [dequantize, product], weights=int8)) == "int8"
    assert onnx_precision(write(path, [dequantize, first, second], weights={**int8, "v": eye})) == "mixed"
    assert onnx_precision(write(path, weights={"w": eye.astype(np.float16)})) == "fp16"
    bias = helper.make_node("Add", ["x", "b"], ["y"])  # no weight: a table of any type says nothing
    assert onnx_precision(write(path, [bias], weights={"b": np.zeros((1, 4), np.float32)})) == "fp32"


def test_run_in_batches_gives_what_one_call_gives(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    session = create_session(write(tmp_path / "m.onnx", weights={"w": weight}))
    x = np.random.default_rng(1).standard_normal((7, 4)).astype(np.float32)
    np.testing.assert_allclose(run(session, {"x": x}, batch_size=3)["y"], x @ weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(session, {"x": x[::-1]})["y"], x[::-1] @ weight, rtol=1e-5, atol=1e-6)


def test_a_graph_with_a_fixed_batch_answers_any_number_of_samples(tmp_path: Path) -> None:
    session = create_session(write(tmp_path / "m.onnx", shape=(3, 4)))
    for count in (1, 3, 7):
        x = np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)
        np.testing.assert_array_equal(run(session, {"x": x})["y"], x)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"z": np.zeros((1, 4), np.float32)}, r"\['z'\].*\['x'\]"),
        ({"x": np.zeros((1, 4))}, "found: float64; wanted: float32"),
        ({"x": np.zeros((1, 5), np.float32)}, r"shape \(1, 5\)"),
        ({"x": np.zeros(4, np.float32)}, r"shape \(4,\)"),
        ({"x": np.zeros((0, 4), np.float32)}, "at least 1"),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        run(create_session(write(tmp_path / "m.onnx")), inputs)


def test_settings_reach_the_session_and_survive_json(tmp_path: Path) -> None:
    settings = SessionSettings(2, 1, "extended", ("SkipLayerNormFusion",), True)
    block = settings.to_json()
    assert SessionSettings.from_json(block) == settings
    assert set(block) == {
        "intra_op_threads", "inter_op_threads", "graph_optimization_level", "disabled_optimizers",
        "allow_spinning", "denormals_as_zero",
    }  # fmt: skip
    options = create_session(write(tmp_path / "m.onnx"), settings).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.graph_optimization_level.name == "ORT_ENABLE_EXTENDED"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    with pytest.raises(InputError, match=r"everything.*disable \| basic"):
        SessionSettings(graph_optimization_level="everything")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads"):
        SessionSettings(intra_op_threads=-1)
