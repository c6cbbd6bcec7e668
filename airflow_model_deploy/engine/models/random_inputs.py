"""Draws inputs for a model that came without data: from its file alone, the same ones for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.onnx_file import open_onnx, read_signature
from airflow_model_deploy.engine.models.runtime import create_session, run

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from onnx import ModelProto

    from airflow_model_deploy.engine.artifacts import TensorSpec

_REMEDY = "Give `data`: a loader whose split 'test' shows inputs that the model takes (targets may be None)."


def random_inputs(path: Path, samples: int, *, seed: int = 0, size: int = 16) -> dict[str, np.ndarray]:
    """Inputs by name, with which the model runs and gives finite numbers.

    Floats are standard normal, bytes any of 0..255, truth values either. Integers that look up rows of a table
    stored in the graph (an embedding) are numbers of its rows; other integers are 0 or 1.

    Args:
        path: the ONNX file.
        samples: size of dimension 0.
        seed: everything drawn follows from it.
        size: of every other dimension that may vary.

    Raises:
        InputError: an input of another type, or the model doesn't take what was drawn.
    """
    import numpy as np

    signature = read_signature(path)
    rows = _table_rows(open_onnx(path))
    random = np.random.default_rng(seed)
    drawn = {t.name: _draw(t, samples, size, rows.get(t.name, 2), random) for t in signature.inputs}
    few = {name: array[:4] for name, array in drawn.items()}
    try:
        outputs = run(create_session(path), few)
    except InputError as error:
        raise InputError(
            f"random inputs for {path.name}", found=str(error), wanted="inputs that it takes", remedy=_REMEDY
        ) from error
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
            raise InputError(
                f"output {name} for random inputs", found="NaN or infinity", wanted="numbers", remedy=_REMEDY
            )
    return drawn


def _draw(spec: TensorSpec, samples: int, size: int, rows: int, random: np.random.Generator) -> np.ndarray:
    import numpy as np

    if spec.dtype in ("object", "bfloat16") or np.dtype(spec.dtype).kind not in "fiub":
        raise InputError(
            f"random values for input {spec.name}", found=spec.dtype, wanted="numbers", remedy=_REMEDY
        )
    shape = (samples, *(size if isinstance(n, str) else n for n in spec.shape[1:]))
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    highest = int(np.iinfo(dtype).max) + 1
    return random.integers(0, highest if dtype == np.uint8 else min(rows, highest), shape).astype(dtype)


def _table_rows(model: ModelProto) -> dict[str, int]:
    """Rows of the stored table that an input, or its cast, looks up."""
    tables = {t.name: tuple(t.dims) for t in model.graph.initializer}
    inputs = {value.name: value.name for value in model.graph.input}
    rows: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in inputs:
            inputs[node.output[0]] = inputs[node.input[0]]
        if node.op_type == "Gather" and node.input[0] in tables and node.input[1] in inputs:
            count = tables[node.input[0]][_axis(node)]
            name = inputs[node.input[1]]
            rows[name] = min(count, rows.get(name, count))
    return rows


def _axis(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
