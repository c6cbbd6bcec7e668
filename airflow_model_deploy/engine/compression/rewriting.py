"""Rewrites single nodes of an ONNX graph into their integer form: the patterns that ONNX Runtime has kernels for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression.weight_nodes import drop_unused_weights, fresh, read_by
from airflow_model_deploy.engine.compression.weight_only import (
    blockwise,
    column_scales,
    int8_columns,
    int8_rows,
    row_scales,
)
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from onnx import ModelProto, NodeProto

    from airflow_model_deploy.engine.compression.weight_nodes import Format, NodeWeight
    from airflow_model_deploy.engine.models import Stream

BLOCKS = {8: 128, 4: 32}  # values that share a scale
_MICROSOFT = "com.microsoft"
_OLDEST = 11  # the opset that brought DynamicQuantizeLinear


class Rewriter:
    """One pass over a graph: nodes are replaced in place, their new weights collected as streams."""

    def __init__(self, model: ModelProto, *, per_channel: bool, block_size: int | None) -> None:
        self.model = model
        self.per_channel = per_channel
        self.block_size = block_size
        self.streams: dict[str, Stream] = {}
        self._taken = _all_names(model)
        self._nodes: list[NodeProto] = []
        self._looked_up: set[str] = set()  # weights of Gather nodes that become int8
        self._made: dict[tuple[Any, ...], Any] = {}  # what several nodes share
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))

    def rewrite(self, uses: Mapping[str, NodeWeight], formats: Mapping[str, Format]) -> None:
        """Give each node named its format; weights and transposes that nobody uses any more go."""
        if self.opset < _OLDEST and any(f != "fp32" for f in formats.values()):
            raise InputError(
                "opset of the model", found=self.opset, wanted=f"{_OLDEST} or later",
                remedy="Export it again with opset 20.",
            )  # fmt: skip
        self._looked_up = {
            uses[name].tensor.name
            for name, wanted in formats.items()
            if wanted != "fp32" and uses[name].node.op_type == "Gather"
        }
        for node in [type(n).FromString(n.SerializeToString()) for n in self.model.graph.node]:
            wanted = formats.get(node.name, "fp32")
            if wanted == "fp32":
                self._nodes.append(node)
            elif node.op_type == "Gather":
                self._lookup(node, uses[node.name])
            elif wanted == "int8-dynamic":
                self._dynamic(node, uses[node.name])
            else:
                self._weight_only(node, uses[node.name], 8 if wanted == "int8-weight" else 4)
        self.model.graph.ClearField("node")
        self.model.graph.node.extend(_alive(self._nodes, {value.name for value in self.model.graph.output}))
        drop_unused_weights(self.model.graph)

    def _dynamic(self, node: NodeProto, use: NodeWeight) -> None:
        """DynamicQuantizeLinear, MatMulInteger, Cast, Mul: what ONNX Runtime fuses into DynamicQuantizeMatMul."""
        levels, scales, zeros = self._shared(("dynamic", use.tensor.name, use.transposed), self._columns, use)
        x, x_scale, x_zero = self._shared(("activation", node.input[0]), self._activation, node.input[0])
        total = self._add("MatMulInteger", [x, levels, x_zero, zeros], f"{node.name}_product")
        number = self._add("Cast", [total], f"{node.name}_float", to=1)
        scale = self._add("Mul", [x_scale, scales], f"{node.name}_scale")
        self._finish(node, "Mul", [number, scale])

    def _columns(self, use: NodeWeight) -> tuple[str, str, str]:
        import numpy as np

        if use.transposed and self.per_channel and use.tensor.name in self._looked_up:
            return self._columns_of_rows(use)
        weight, how = use.tensor, {"transposed": use.transposed, "per_channel": self.per_channel}
        shape = weight.shape[::-1] if use.transposed else weight.shape
        levels = self._stream(f"{weight.name}_int8", shape, np.int8, int8_columns(weight, **how))
        scales = self._constant(f"{weight.name}_scale", column_scales(weight, **how))
        return levels, scales, self._constant(f"{weight.name}_zero_point", np.zeros(shape[1], np.int8))

    def _columns_of_rows(self, use: NodeWeight) -> tuple[str, str, str]:
        """A table that is looked up in too is stored once: its rows are these columns, scales and all."""
        import numpy as np

        weight = use.tensor
        levels, scales = self._shared(("lookup", weight.name), self._rows, use)
        turned = self._add("Transpose", [levels], f"{weight.name}_int8", perm=[1, 0])
        return turned, scales, self._constant(f"{weight.name}_zero_point", np.zeros(weight.shape[0], np.int8))

    def _activation(self, name: str) -> tuple[str, str, str]:
        import onnx

        outputs = [fresh(f"{name}_{part}", self._taken) for part in ("quantized", "scale", "zero_point")]
        self._nodes.append(
            onnx.helper.make_node(
                "DynamicQuantizeLinear", [name], outputs, name=fresh(f"{name}_quantize", self._taken)
            )
        )
        return outputs[0], outputs[1], outputs[2]

    def _weight_only(self, node: NodeProto, use: NodeWeight, bits: int) -> None:
        """MatMulNBits: integer weights in blocks; activations are quantized inside the kernel, per block."""
        block = self.block_size or BLOCKS[bits]
        depth, columns = use.tensor.shape[::-1] if use.transposed else use.tensor.shape
        levels, scales = self._shared(
            ("weight", use.tensor.name, use.transposed, bits), self._blocks, use, bits, block, columns
        )
        if not any(entry.domain == _MICROSOFT for entry in self.model.opset_import):
            self.model.opset_import.add(domain=_MICROSOFT, version=1)
        self._finish(
            node, "MatMulNBits", [node.input[0], levels, scales], domain=_MICROSOFT,
            K=depth, N=columns, bits=bits, block_size=block, accuracy_level=4,
        )  # fmt: skip

    def _blocks(self, use: NodeWeight, bits: int, block: int, columns: int) -> tuple[str, str]:
        import numpy as np

        levels, scales = blockwise(use.tensor, transposed=use.transposed, bits=bits, block=block)
        count = scales.size // (4 * columns)
        name = f"{use.tensor.name}_int{bits}"
        return (
            self._stream(name, (columns, count, block * bits // 8), np.uint8, levels),
            self._stream(f"{name}_scales", (columns, count), np.float32, scales),
        )

    def _lookup(self, node: NodeProto, use: NodeWeight) -> None:
        """The rows wanted are looked up as int8, and each is given its scale."""
        levels, scales = self._shared(("lookup", use.tensor.name), self._rows, use)
        rows = self._add("Gather", [levels, node.input[1]], f"{node.name}_rows", axis=0)
        number = self._add("Cast", [rows], f"{node.name}_float", to=1)
        scale = self._add("Gather", [scales, node.input[1]], f"{node.name}_scales", axis=0)
        axes = [-1 - i for i in range(len(use.tensor.shape) - 1)]
        self._finish(node, "Mul", [number, self._unsqueezed(scale, axes, node.name)])

    def _unsqueezed(self, name: str, axes: list[int], node: str) -> str:
        import numpy as np

        if self.opset < 13:
            return self._add("Unsqueeze", [name], f"{node}_scale", axes=axes)
        wanted = self._shared(
            ("axes", len(axes)), self._constant, f"last_{len(axes)}", np.array(axes, np.int64)
        )
        return self._add("Unsqueeze", [name, wanted], f"{node}_scale")

    def _rows(self, use: NodeWeight) -> tuple[str, str]:
        import numpy as np

        weight = use.tensor
        levels = self._stream(f"{weight.name}_int8_rows", weight.shape, np.int8, int8_rows(weight))
        return levels, self._constant(f"{weight.name}_row_scale", row_scales(weight))

    def _finish(
        self, node: NodeProto, op_type: str, inputs: list[str], *, domain: str = "", **attributes: Any
    ) -> None:
        """The last node of a pattern: it keeps the name and the output of the one replaced; a Gemm's bias follows."""
        import onnx

        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        output = fresh(f"{node.name}_without_bias", self._taken) if bias else node.output[0]
        made = onnx.helper.make_node(op_type, inputs, [output], name=node.name, **attributes)
        made.domain = domain
        self._nodes.append(made)
        if bias:
            name = fresh(f"{node.name}_bias", self._taken)
            self._nodes.append(onnx.helper.make_node("Add", [output, bias], [node.output[0]], name=name))

    def _add(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        import onnx

        name = fresh(name, self._taken)
        self._nodes.append(onnx.helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def _shared(self, key: tuple[Any, ...], make: Any, *arguments: Any) -> Any:
        if key not in self._made:
            self._made[key] = make(*arguments)
        return self._made[key]

    def _constant(self, name: str, value: np.ndarray) -> str:
        import onnx

        name = fresh(name, self._taken)
        self.model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return name

    def _stream(self, name: str, shape: tuple[int, ...], dtype: Any, stream: Stream) -> str:
        import numpy as np
        import onnx

        name = fresh(name, self._taken)
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.model.graph.initializer.append(onnx.TensorProto(name=name, dims=shape, data_type=kind))
        self.streams[name] = stream
        return name


def _alive(nodes: list[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """Without transposes and the like of weights that were replaced."""
    while True:
        used = {name for node in nodes for name in read_by(node)} | outputs
        kept = [n for n in nodes if n.op_type not in ("Transpose", "Identity") or set(n.output) & used]
        if len(kept) == len(nodes):
            return kept
        nodes = kept


def _all_names(model: ModelProto) -> Counter[str]:
    graph = model.graph
    names = Counter(value.name for value in (*graph.input, *graph.output))
    names.update(tensor.name for tensor in graph.initializer)
    for node in graph.node:
        names.update((node.name, *read_by(node), *node.output))
    return names
