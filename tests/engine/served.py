"""The real server on a real model, on loopback, for the time of the room's tests."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
from airflow_model_deploy.engine.packaging import write_servable
from airflow_model_deploy.engine.probing import GoldenSet, ServerProcess, Tolerance, make_golden, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS = np.array([[1.0, -2.0], [0.5, 4.0], [3.0, 0.25]], dtype=np.float32)
TOLERANCE = {"y": Tolerance(1e-5, 0.0, "fp32 rounding")}


@dataclass(frozen=True)
class Served:
    command: list[str]
    golden: GoldenSet
    process: ServerProcess

    @property
    def weights(self) -> np.ndarray:
        return WEIGHTS

    @property
    def url(self) -> str:
        return self.process.base_url


@pytest.fixture(scope="session")
def golden() -> GoldenSet:
    x = np.random.default_rng(3).uniform(-1, 1, size=(4, 3)).astype(np.float32)
    y = (x.astype(np.float64) @ WEIGHTS.astype(np.float64)).astype(np.float32)
    return make_golden({"x": x}, {"y": y}, {"y": y}, original_tolerance=TOLERANCE, built_tolerance=TOLERANCE)


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory, golden: GoldenSet) -> list[str]:
    folder = tmp_path_factory.mktemp("served")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    write_servable(
        folder / "servable",
        model=folder / "model.onnx",
        name="affine",
        version="1",
        signature=Signature(
            (TensorSpec("x", ("batch", 3), "float32"),), (TensorSpec("y", ("batch", 2), "float32"),)
        ),
        session={},
        precision="fp32",
        golden=golden,
    )
    servable = str(folder / "servable")
    return [sys.executable, "-m", "airflow_model_deploy.engine.serving", "--servable", servable]


@pytest.fixture(scope="session")
def served(command: list[str], golden: GoldenSet) -> Iterator[Served]:
    with serve(command, ready_timeout_s=60) as process:
        yield Served(command, golden, process)
