from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from airflow_model_deploy.engine.compression import export_onnx
from tests.engine.compression.nets import mlp

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Noisy 8x8 pictures of ten fixed patterns: quick to learn, and not trivial."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((10, 1, 8, 8))
    labels = rng.integers(0, 10, 600)
    return (patterns[labels] + 1.2 * rng.standard_normal((600, 1, 8, 8))).astype(np.float32), labels


@pytest.fixture(scope="session")
def cnn_file(tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]) -> Path:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    x, y = torch.from_numpy(digits[0][:500]), torch.from_numpy(digits[1][:500])
    for step in range(40):
        rows = slice(step % 8 * 64, step % 8 * 64 + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("cnn") / "model.onnx"
    export_onnx(model, {"x": x[:2]}, path)
    return path


@pytest.fixture(scope="session")
def mlp_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("mlp") / "model.onnx"
    export_onnx(mlp(256), {"x": torch.randn(2, 20)}, path)
    return path


@pytest.fixture(scope="session")
def norm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions followed by batch norms that nobody has folded."""
    rng = np.random.default_rng(0)
    nodes, weights, last, width = [], [], "x", 3
    for i in range(4):
        values = {
            "w": rng.standard_normal((32, width, 3, 3)) * 0.1, "scale": 1 + 0.1 * rng.standard_normal(32),
            "shift": rng.standard_normal(32), "mean": rng.standard_normal(32), "var": np.ones(32),
        }  # fmt: skip
        weights += [numpy_helper.from_array(v.astype(np.float32), f"{k}{i}") for k, v in values.items()]
        nodes += [
            helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1] * 4, name=f"conv{i}"),
            helper.make_node(
                "BatchNormalization", [f"c{i}", *(f"{k}{i}" for k in list(values)[1:])], [f"n{i}"]
            ),
            helper.make_node("Relu", [f"n{i}"], [f"r{i}"]),
        ]
        last, width = f"r{i}", 32
    nodes += [helper.make_node("GlobalAveragePool", [last], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    graph = helper.make_graph(
        nodes, "norms", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])], weights,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("norms") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path
