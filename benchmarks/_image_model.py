"""Servables of a chosen size whose weights differ from one to the next."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Models:
    """One ONNX file of random weights, and servables of it.

    Args:
        folder: an empty folder.
        size_bytes: of the weights.
    """

    folder: Path
    size_bytes: int

    def write(self) -> None:
        """Write the file: y = x @ w."""
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        self.folder.mkdir(parents=True)
        side = math.isqrt(self.size_bytes // 4)
        weights = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
        batch = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", side]) for name in ("x", "y")
        ]
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        graph = helper.make_graph(
            [node], "large", batch[:1], batch[1:], [numpy_helper.from_array(weights, "w")]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(self.folder / "model.onnx"))

    def servable(self, number: int) -> Path:
        """Change a few weights in the middle and write the servable; 0, 1, ..: each is another model."""
        import numpy as np

        from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
        from airflow_model_deploy.engine.packaging import write_servable

        model, folder = self.folder / "model.onnx", self.folder / f"servable-{number}"
        with model.open("r+b") as stream:
            stream.seek(model.stat().st_size // 8 * 4)
            stream.write(np.full(16, number + 1, np.float32).tobytes())
        side = math.isqrt(self.size_bytes // 4)
        x, y = (TensorSpec(name, ("batch", side), "float32") for name in ("x", "y"))
        write_servable(
            folder,
            model=model,
            name="large",
            version=str(number),
            signature=Signature((x,), (y,)),
            session={},
            precision="fp32",
            golden=None,
        )
        return folder


def model_bytes(servable: Path) -> int:
    """The size of a servable's model file."""
    index = json.loads((servable / "servable.json").read_bytes())
    return (servable / str(index["model"]["file"])).stat().st_size
