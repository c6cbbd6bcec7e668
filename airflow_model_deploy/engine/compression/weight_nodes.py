"""Finds the nodes of an ONNX graph that multiply with, or look up in, a stored weight, and what each can become."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import StoredTensor, open_onnx, stored_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import ModelProto, NodeProto, TensorProto  # noqa: TC004 - no one asks these classes for their types at run time

Format = Literal[
    "fp32", "int8-dynamic", "int8-smooth", "int8-outlier", "int8-static", "int8-weight", "int4-weight"
]  # fmt: skip

_PRODUCT: tuple[Format, ...] = get_args(Format)
_LOOKUP: tuple[Format, ...] = ("fp32", "int8-dynamic", "int8-weight")
_STATIC_ONLY: tuple[Format, ...] = ("fp32", "int8-static")
PLACES = {"MatMul": 1, "Gemm": 1, "Gather": 0, "Conv": 1, "ConvTranspose": 1}  # the input that is the weight


@dataclass(frozen=True)
class WeightedNode:
    """A node with a stored float32 weight that at least one integer format applies to.

    Args:
        name: the node's name; nodes without one, or with another's, are given one.
        op_type: MatMul, Gemm, Gather, Conv or ConvTranspose.
        weight: the stored tensor's name. Two nodes may share it.
        shape: the stored tensor's.
        elements: their number.
        bytes: as float32.
        formats: what it can become; "fp32" stands first.
    """

    name: str
    op_type: str
    weight: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    formats: tuple[Format, ...]


@dataclass(frozen=True)
class NodeWeight:
    """A node and the weight that it uses, which may reach it through a Transpose.

    Args:
        node: in the graph.
        tensor: the stored tensor.
        transposed: whether its rows are the product's columns.
        formats: what it can become.
    """

    node: NodeProto
    tensor: StoredTensor
    transposed: bool
    formats: tuple[Format, ...]


def weighted_nodes(path: str | Path) -> tuple[WeightedNode, ...]:
    """Every node of a float model that a format applies to, in the graph's order. Reads no weights."""
    found = weights_of(open_for_rewriting(path), Path(path).parent)
    return tuple(
        WeightedNode(
            name=use.node.name,
            op_type=use.node.op_type,
            weight=use.tensor.name,
            shape=use.tensor.shape,
            elements=math.prod(use.tensor.shape),
            bytes=4 * math.prod(use.tensor.shape),
            formats=use.formats,
        )
        for use in found.values()
    )


def graph_nodes(path: str | Path) -> dict[str, str]:
    """Every node's name, as formats name it, and its operator, in the graph's order."""
    return {node.name: node.op_type for node in open_for_rewriting(path).graph.node}


def open_for_rewriting(path: str | Path) -> ModelProto:
    """The graph with a name of its own for every node, and its constants as initializers."""
    model = open_onnx(path)
    _lift_constants(model)
    taken = Counter(node.name for node in model.graph.node)
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            output = next((name for name in node.output if name), "")
            node.name = fresh(node.name or f"{node.op_type}_{output}", taken)
        seen.add(node.name)
    return model


def fresh(name: str, taken: Mapping[str, int]) -> str:
    """A name that nobody has, counted as taken from now on."""
    chosen, number = name, 2
    while taken.get(chosen):
        chosen, number = f"{name}_{number}", number + 1
    if isinstance(taken, Counter):
        taken[chosen] += 1
    return chosen


def weights_of(model: ModelProto, folder: Path) -> dict[str, NodeWeight]:
    """Node name -> its float32 weight, for nodes that a format applies to."""
    import onnx

    found = {}
    for node, tensor, transposed in _uses(model):
        formats = _formats(node, len(tensor.dims))
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) and formats:
            found[node.name] = NodeWeight(node, stored_tensor(tensor, folder), transposed, formats)
    return found


def why_not(model: ModelProto, name: str) -> str:
    """Why a node that exists is not in `weights_of`."""
    import onnx

    for node, tensor, _ in _uses(model):
        if node.name == name:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            return f"a {node.op_type} with a weight of {list(tensor.dims)} in {kind}"
    operator = next(node.op_type for node in model.graph.node if node.name == name)
    return f"a {operator} without a stored weight"


def _uses(model: ModelProto) -> Iterator[tuple[NodeProto, TensorProto, bool]]:
    stored = {tensor.name: (tensor, False) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] in stored and _swaps(node, *stored[node.input[0]]):
            tensor, transposed = stored[node.input[0]]
            stored[node.output[0]] = (tensor, not transposed)
        elif node.op_type == "Identity" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
        place = PLACES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if place is None or len(node.input) <= place or node.input[place] not in stored:
            continue
        tensor, transposed = stored[node.input[place]]
        if transposed and node.op_type not in ("MatMul", "Gemm"):
            continue
        yield node, tensor, transposed != (node.op_type == "Gemm" and attribute(node, "transB", 0) == 1)


def _swaps(node: NodeProto, tensor: TensorProto, transposed: bool) -> bool:
    del transposed
    return len(tensor.dims) == 2 and list(attribute(node, "perm", (1, 0))) == [1, 0]


def _formats(node: NodeProto, rank: int) -> tuple[Format, ...]:
    if node.op_type == "Gather":
        return _LOOKUP if rank >= 2 and attribute(node, "axis", 0) == 0 else ()
    if node.op_type in ("Conv", "ConvTranspose"):
        # ONNX Runtime's quantizer takes the output channels of one group for all of them.
        grouped = node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1
        return _STATIC_ONLY if rank >= 3 and not grouped else ()
    if rank != 2:
        return ()
    return _PRODUCT if is_plain_product(node) else ()


def is_plain_product(node: NodeProto) -> bool:
    """Whether a MatMul or Gemm is x·W, or x·W + c: factors have no place in the integer forms."""
    plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "transA", 0) == 0
    has_bias = len(node.input) > 2 and bool(node.input[2])
    return plain and (not has_bias or attribute(node, "beta", 1.0) == 1.0)


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute's value, or the default where the node has none."""
    import onnx

    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def used_names(graph: Any) -> set[str]:
    """What the nodes of a graph read, with those of subgraphs."""
    return {name for node in graph.node for name in read_by(node)}


def drop_unused_weights(graph: Any) -> None:
    """Take away initializers that nobody reads, and the inputs that old files list them among."""
    used = used_names(graph) | {value.name for value in graph.output}
    gone = {tensor.name for tensor in graph.initializer} - used
    for part in ("initializer", "input"):
        kept = [item for item in getattr(graph, part) if item.name not in gone]
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        graph.ClearField(part)
        getattr(graph, part).extend(copies)


def read_by(node: NodeProto) -> set[str]:
    """What a node reads, its subgraphs included."""
    found = set(node.input)
    for one in node.attribute:
        for graph in (one.g, *one.graphs):
            found |= used_names(graph) | {value.name for value in graph.output}
    return found


def _lift_constants(model: ModelProto) -> None:
    """Constant nodes with a tensor as initializers: exporters write weights as either."""
    kept = []
    for node in model.graph.node:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and tensor is not None:
            lifted = model.graph.initializer.add()
            lifted.CopyFrom(tensor)
            lifted.name = node.output[0]
        else:
            kept.append(node)
    if len(kept) != len(model.graph.node):
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        model.graph.ClearField("node")
        model.graph.node.extend(copies)


def check_formats(formats: Mapping[str, str], model: ModelProto, uses: Mapping[str, NodeWeight]) -> None:
    """InputError unless every node named exists and can take its format."""
    names = {node.name for node in model.graph.node}
    known = set(_PRODUCT)
    for name, wanted in formats.items():
        if wanted not in known:
            raise InputError(f"format of node {name}", found=wanted, wanted=" | ".join(_PRODUCT))
        if name not in names:
            some = ", ".join(list(uses)[:8]) or "none: no node has a stored float32 weight"
            raise InputError("formats", found=f"node {name!r}", wanted=f"names of the graph's nodes: {some}")
        if wanted == "fp32":
            continue
        if name not in uses:
            raise InputError(
                f"format {wanted} of node {name}",
                found=why_not(model, name),
                wanted="a MatMul, Gemm, Gather or Conv with a stored float32 weight",
                remedy="Leave the node out, or give the float32 model.",
            )
        if wanted not in uses[name].formats:
            raise InputError(
                f"format {wanted} of node {name}",
                found=f"a {uses[name].node.op_type}",
                wanted=f"one of {', '.join(uses[name].formats)} for it",
                remedy="Choose one of these.",
            )
