"""Inputs drawn for files that came without data."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.random_inputs import random_inputs


def _save(path, nodes, inputs, outputs, stored=()):
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in stored],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.fixture
def reader(tmp_path):
    """A table of 30 rows looked up by int32 numbers (cast first), masked by truth values of the same length."""
    table = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
    return _save(
        tmp_path / "reader.onnx",
        [
            helper.make_node("Cast", ["tokens"], ["wide"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "wide"], ["rows"]),
            helper.make_node("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
            helper.make_node("Mul", ["rows", "column"], ["output"]),
        ],
        [("tokens", TensorProto.INT32, ["n", "length"]), ("mask", TensorProto.BOOL, ["n", "length"])],
        [("output", TensorProto.FLOAT, ["n", "length", 4])],
        [("table", table), ("last", np.array([2], np.int64))],
    )


def test_the_same_file_and_seed_give_the_same_inputs_of_its_types_and_shapes(reader):
    drawn = random_inputs(reader, 50, size=9)
    assert {name: (a.dtype.name, a.shape) for name, a in drawn.items()} == {
        "tokens": ("int32", (50, 9)),
        "mask": ("bool", (50, 9)),
    }
    again = random_inputs(reader, 50, size=9)
    assert all((drawn[name] == again[name]).all() for name in drawn)
    assert (random_inputs(reader, 50, size=9, seed=1)["tokens"] != drawn["tokens"]).any()


def test_numbers_that_look_up_a_table_are_rows_of_it(reader):
    tokens = random_inputs(reader, 100)["tokens"]
    assert set(np.unique(tokens)) == set(range(30))


def test_a_model_that_does_not_take_them_asks_for_data(tmp_path):
    divided = _save(
        tmp_path / "divided.onnx",
        [helper.make_node("Div", ["x", "x"], ["one"]), helper.make_node("Log", ["x"], ["output"])],
        [("x", TensorProto.FLOAT, ["n", 3])],
        [("output", TensorProto.FLOAT, ["n", 3])],
    )
    with pytest.raises(InputError, match=r"NaN or infinity.*Give `data`"):
        random_inputs(divided, 16)  # the logarithm of a negative number
    texts = _save(
        tmp_path / "texts.onnx",
        [helper.make_node("Identity", ["x"], ["output"])],
        [("x", TensorProto.STRING, ["n"])],
        [("output", TensorProto.STRING, ["n"])],
    )
    with pytest.raises(InputError, match=r"random values for input x.*Give `data`"):
        random_inputs(texts, 16)
