"""Tells in which precision a graph keeps its weights, by the operators that consume them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.models.onnx_file import open_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import ModelProto, NodeProto

# Operators whose work is multiplying with, or looking up in, a stored weight.
WEIGHTED_OPS = frozenset({
    "Attention", "Conv", "ConvInteger", "ConvTranspose", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul",
    "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gather", "GatherBlockQuantized", "Gemm", "LSTM",
    "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "NhwcFusedConv", "QAttention",
    "QGemm", "QLinearConv", "QLinearMatMul", "RNN",
})  # fmt: skip
_CARRIERS = frozenset({"DequantizeLinear", "Cast", "Transpose", "Identity", "Reshape"})


def onnx_precision(path: str | Path) -> str:
    """One word for a file: "fp32", "fp16", "bf16", "fp64", "int8" or "int4", or "mixed" where weights differ.

    A weight counts where an operator such as Conv, MatMul, Gemm or Gather takes a stored tensor of two or
    more dimensions; biases and norms stay float in every scheme and don't count.
    """
    model = open_onnx(path)
    found = {precision for _, precision in weight_precisions(model)}
    if len(found) == 1:
        return found.pop()
    return "mixed" if found else "fp32"


def weight_precisions(model: ModelProto) -> Iterator[tuple[NodeProto, str]]:
    """(node, precision of its weight) for each node that has one."""
    import onnx

    types = {
        onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.DOUBLE: "fp64", onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.BFLOAT16: "bf16", onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8",
        onnx.TensorProto.INT4: "int4", onnx.TensorProto.UINT4: "int4",
    }  # fmt: skip
    weights = {
        t.name: types[t.data_type]
        for t in model.graph.initializer
        if _counts(len(t.dims), t.data_type, types)
    }
    for node in model.graph.node:  # exporters write weights as Constant nodes too
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                tensor = attribute.t
                if _counts(len(tensor.dims), tensor.data_type, types):
                    weights[node.output[0]] = types[tensor.data_type]
        if node.op_type in _CARRIERS and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    for node in model.graph.node:
        if node.op_type not in WEIGHTED_OPS:
            continue
        bits = next((a.i for a in node.attribute if a.name == "bits"), None)
        stored = [weights[name] for name in node.input if name in weights]
        if stored:
            yield node, (f"int{bits}" if bits in (2, 4, 8) else stored[0])


def _counts(rank: int, data_type: int, types: dict[int, str]) -> bool:
    return rank >= 2 and data_type in types
