"""The model that every server serves, and what numpy says it answers. Needs numpy; making it needs onnx.

An MLP 784-512-512-10 in float32, of random weights with a fixed seed: small enough that what a server adds shows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

NAME, INPUT, OUTPUT = "mlp", "x", "y"
WIDTHS = (784, 512, 512, 10)
_RELATIVE, _ABSOLUTE = 1e-4, 1e-4


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """(inputs x outputs, outputs) of every layer, by He's rule."""
    random = np.random.default_rng(784)
    layers = []
    for narrow, wide in pairwise(WIDTHS):
        matrix = random.normal(0.0, np.sqrt(2.0 / narrow), (narrow, wide)).astype(np.float32)
        layers.append((matrix, random.normal(0.0, 0.1, wide).astype(np.float32)))
    return layers


def samples(count: int) -> np.ndarray:
    """Random inputs, (count, 784), as pixels are: between 0 and 1."""
    return np.random.default_rng(512).random((count, WIDTHS[0]), dtype=np.float32)


def expected(inputs: np.ndarray) -> np.ndarray:
    """The outputs, (n, 784) -> (n, 10), computed in float64."""
    values = inputs.astype(np.float64)
    layers = weights()
    for matrix, bias in layers[:-1]:
        values = np.maximum(values @ matrix + bias, 0.0)
    matrix, bias = layers[-1]
    outputs: np.ndarray = values @ matrix + bias
    return outputs


def agree(got: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether shapes are equal and every value is within what float32 allows."""
    return got.shape == wanted.shape and bool(np.allclose(got, wanted, rtol=_RELATIVE, atol=_ABSOLUTE))


def write_model(path: Path) -> Path:
    """Write the ONNX file; returns its path."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    tensors: list[Any] = []
    value = INPUT
    layers = weights()
    for index, (matrix, bias) in enumerate(layers):
        last = index == len(layers) - 1
        made = OUTPUT if last else f"sum{index}"
        tensors += [numpy_helper.from_array(matrix, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [made]))
        if not last:
            value = f"relu{index}"
            nodes.append(helper.make_node("Relu", [made], [value]))
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", WIDTHS[0]])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", WIDTHS[-1]])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_servable(folder: Path, model: Path) -> Path:
    """Write the servable that our server loads; returns its folder."""
    from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
    from airflow_model_deploy.engine.packaging import write_servable as write

    signature = Signature(
        (TensorSpec(INPUT, ("batch", WIDTHS[0]), "float32"),),
        (TensorSpec(OUTPUT, ("batch", WIDTHS[-1]), "float32"),),
    )
    write(
        folder,
        model=model,
        name=NAME,
        version="1",
        signature=signature,
        session={},
        precision="fp32",
        golden=None,
    )
    return folder
