"""A real ONNX model with a real difference between original and built, and its golden requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
from airflow_model_deploy.engine.packaging import write_servable
from airflow_model_deploy.engine.probing import GoldenSet, derive_tolerance, make_golden, tight_tolerance
from tests.engine.containers.support import base, client, engine, registry, repository

__all__ = ["base", "client", "engine", "registry", "repository"]


@dataclass(frozen=True)
class Parts:
    model: Path
    signature: Signature
    golden: GoldenSet

    def write(self, folder: Path, **changes: object) -> str:
        arguments: dict[str, object] = {
            "model": self.model,
            "name": "affine",
            "version": "3f9a1c2b4d5e",
            "signature": self.signature,
            "session": {},
            "precision": "int8",
            "golden": self.golden,
        }
        return write_servable(folder, **(arguments | changes))  # type: ignore[arg-type]

    @staticmethod
    def save_affine(path: Path, weights: np.ndarray) -> None:
        """y = x @ weights, batch free."""
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "affine",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weights.shape[0]])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weights.shape[1]])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(path))


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(4, 3)).astype(np.float32)
    rounded = np.round(weights, 2)  # what compression did to it
    path = tmp_path_factory.mktemp("model") / "built.onnx"
    Parts.save_affine(path, rounded)
    sample, asked = (rng.uniform(-1, 1, size=(n, 4)).astype(np.float32) for n in (400, 6))
    promise = derive_tolerance({"y": sample @ weights}, {"y": sample @ rounded}, source="400 held-out rows")
    rows = np.concatenate([sample[i : i + 1] @ rounded for i in range(len(sample))])
    golden = make_golden(
        {"x": asked},
        {"y": asked @ weights},
        {"y": asked @ rounded},
        original_tolerance=promise,
        built_tolerance=tight_tolerance({"y": sample @ rounded}, [{"y": rows}]),
    )
    signature = Signature(
        (TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 3), "float32"),)
    )
    return Parts(path, signature, golden)
