"""Counts the weights that are exactly zero, in float graphs and in quantized ones alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.compression.weight_nodes import PLACES, attribute, open_for_rewriting
from airflow_model_deploy.engine.models import stored_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from onnx import ModelProto, NodeProto, TensorProto

    from airflow_model_deploy.engine.models import StoredTensor

_CARRIERS = ("Cast", "Transpose", "Identity", "Reshape")


def weight_zeros(path: str | Path) -> int:
    """Zeros among the stored weights of MatMul, Gemm, Conv, ConvTranspose and Gather, of two or more dimensions.

    Of integers those count that stand at the zero point. A weight that two nodes use counts twice. LSTM and GRU
    don't count.
    """
    path = Path(path)
    return sum(found for found in _counts(open_for_rewriting(path), path.parent))


def _counts(model: ModelProto, folder: Path) -> Iterator[int]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    values: dict[str, tuple[TensorProto, TensorProto | None]] = {n: (t, None) for n, t in stored.items()}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            yield _packed_zeros(node, stored_tensor(stored[node.input[1]], folder))
            continue
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            values[node.output[0]] = (stored[node.input[0]], _zero_point(node, 2, stored))
        elif node.op_type in _CARRIERS and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
        place = 1 if node.op_type == "MatMulInteger" else PLACES.get(node.op_type)
        if place is None or len(node.input) <= place or node.input[place] not in values:
            continue
        weight, zero_point = values[node.input[place]]
        if node.op_type == "MatMulInteger":
            zero_point = _zero_point(node, 3, stored)
        if len(weight.dims) >= 2:
            yield _zeros(stored_tensor(weight, folder), zero_point)


def _zero_point(node: NodeProto, place: int, stored: dict[str, TensorProto]) -> TensorProto | None:
    return stored.get(node.input[place]) if len(node.input) > place else None


def _zeros(weight: StoredTensor, zero_point: TensorProto | None) -> int:
    """Assumes one zero point for the whole weight: all that symmetric and per-tensor schemes have."""
    import numpy as np
    import onnx

    zero = 0
    if zero_point is not None:
        points = np.unique(onnx.numpy_helper.to_array(zero_point))
        if points.size > 1:
            return 0
        zero = int(points[0]) if points.size else 0
    return sum(int((rows == zero).sum()) for _, _, rows in weight.blocks())


def _packed_zeros(node: NodeProto, levels: StoredTensor) -> int:
    """Zeros of a MatMulNBits weight, without what only fills its last block."""
    bits, depth = int(attribute(node, "bits", 4)), int(attribute(node, "K", 0))
    return sum(int(_at_middle(rows, bits)[:, :depth].sum()) for _, _, rows in levels.blocks())


def _at_middle(rows: np.ndarray, bits: int) -> np.ndarray:
    import numpy as np

    middle = 2 ** (bits - 1)
    if bits == 4:
        rows = np.stack([rows & 15, rows >> 4], axis=-1)
    found: np.ndarray = rows.reshape(len(rows), -1) == middle
    return found
