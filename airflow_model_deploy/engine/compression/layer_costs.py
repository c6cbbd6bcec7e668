"""Measures what each layer costs in each format: CPU time and bytes of a graph of that layer alone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression.mixed import build_mixed
from airflow_model_deploy.engine.compression.weight_nodes import open_for_rewriting, weights_of
from airflow_model_deploy.engine.models import (
    create_session,
    file_size,
    interleaved_seconds,
    run,
    stored_tensor,
    write_onnx,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from airflow_model_deploy.engine.compression.weight_nodes import Format, NodeWeight

_ROUNDS = 12
# int8-dynamic and something more: where noise calls them faster, it is wrong.
_MORE_THAN_DYNAMIC = {"int8-smooth", "int8-outlier"}
_AROUND, _CALL = "conversions", "the call itself"


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs by format: milliseconds of CPU time for one request, bytes of its weights."""

    milliseconds: dict[str, float]
    bytes: dict[str, int]


def layer_costs(
    source: str | Path,
    formats: Mapping[str, Sequence[Format]],
    request: Mapping[str, np.ndarray],
    *,
    rounds: int = _ROUNDS,
) -> dict[str, LayerCost]:
    """Measure every layer that `formats` names, in each of its formats and in fp32, on this CPU.

    Layers alike (operator, attributes, shapes of weight and input) are measured once. What a format costs around
    the layer (quantizing its input, for example) is part of the measurement; what fusions across layers save is not.

    Args:
        source: the float model.
        formats: node -> formats; "fp32" is always measured.
        request: one request as it arrives; the shapes of the layers' inputs follow from it.
        rounds: interleaved samples of each format.
    """
    import numpy as np

    source = Path(source)
    model = open_for_rewriting(source)
    uses = {name: use for name, use in weights_of(model, source.parent).items() if name in formats}
    entering = values_inside(source, [_data_input(use) for use in uses.values()], request)
    found: dict[str, LayerCost] = {}
    measured: dict[tuple[Any, ...], LayerCost] = {}
    for name, use in uses.items():
        array = np.atleast_1d(entering[_data_input(use)])  # a lookup's index may be a single number
        key = (*_kind(use), array.shape, array.dtype.str, tuple(formats[name]))
        if key not in measured:
            measured[key] = _measure(use, array, model.opset_import, formats[name], rounds)
        found[name] = measured[key]
    return found


def values_inside(
    source: Path, names: Iterable[str], request: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run a graph once and return what some values inside it are; stored ones are read."""
    import onnx

    model = open_for_rewriting(source)
    stored = {t.name: t for t in model.graph.initializer}
    given = {value.name for value in model.graph.input} - set(stored)
    out = {o.name for o in model.graph.output}
    wanted = sorted(set(names) - given - set(stored))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in out)
    with tempfile.TemporaryDirectory(prefix="inside-") as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, path, folder=source.parent)
        session = create_session(path)
        found = dict(zip(wanted, session.run(wanted, dict(request)), strict=True)) if wanted else {}
    for name in set(names) & set(stored):
        kept = stored_tensor(stored[name], source.parent)
        found[name] = kept.rows(0, kept.shape[0]) if kept.file else onnx.numpy_helper.to_array(stored[name])
    return {**found, **{name: request[name] for name in set(names) & given}}


def _data_input(use: NodeWeight) -> str:
    name: str = use.node.input[1 if use.node.op_type == "Gather" else 0]
    return name


def _kind(use: NodeWeight) -> tuple[Any, ...]:
    attributes = tuple(sorted(a.SerializeToString() for a in use.node.attribute))
    return use.node.op_type, attributes, use.tensor.shape, use.transposed, len(use.node.input)


def _measure(
    use: NodeWeight, array: np.ndarray, opsets: Any, formats: Sequence[Format], rounds: int
) -> LayerCost:
    with tempfile.TemporaryDirectory(prefix="layer-") as name:
        folder = Path(name)
        alone = _graph_of(use, array, opsets, folder / "fp32.onnx")
        files = {"fp32": alone}
        for wanted in formats:
            if wanted != "fp32":
                files[wanted] = folder / wanted / "layer.onnx"
                files[wanted].parent.mkdir()
                build_mixed(
                    alone, files[wanted], {"layer": wanted}, calibration={"x": array}, batch_size=len(array)
                )
        sessions = {wanted: create_session(file) for wanted, file in files.items()}
        answer = next(iter(run(sessions["fp32"], {"x": array}).values()))
        calls = {wanted: partial(s.run, None, {"x": array}) for wanted, s in sessions.items()}
        nothing = create_session(_nothing(array, opsets, folder / "nothing.onnx"))
        calls[_CALL] = partial(nothing.run, None, {"x": array})
        if "int8-static" in files:
            around = create_session(_conversions(array, answer, opsets, folder / "around.onnx"))
            calls[_AROUND] = partial(around.run, None, {"x": array, "z": answer})
        times = interleaved_seconds(calls, rounds=rounds, max_seconds=5.0)
        least = {wanted: 1e3 * min(values) for wanted, values in times.items()}
        call = least.pop(_CALL)
        if _AROUND in least:
            # Between two int8 layers nothing is converted: only what the layer itself takes counts.
            least["int8-static"] -= least.pop(_AROUND) - call
        for more in _MORE_THAN_DYNAMIC & set(least):
            least[more] = max(least[more], least.get("int8-dynamic", 0.0))
        around = file_size(alone) - use.tensor.size  # bytes of the graph without its weight
        return LayerCost(
            {wanted: max(value - call, 1e-6) for wanted, value in least.items()},
            {wanted: file_size(file) - around for wanted, file in files.items()},
        )


def _graph_of(use: NodeWeight, array: np.ndarray, opsets: Any, path: Path) -> Path:
    """A model of one node. Dimension 0 of its input may vary, so that calibration data counts as samples."""
    import onnx

    helper = onnx.helper
    weight = use.tensor.rows(0, use.tensor.shape[0])
    plain = use.node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in use.node.attribute)
    if use.transposed and not plain:  # a Transpose stands between weight and node
        weight = weight.T.copy()
    place = 0 if use.node.op_type == "Gather" else 1
    stored = [onnx.numpy_helper.from_array(weight, "weight")]
    inputs = ["weight", "x"] if place == 0 else ["x", "weight"]
    if len(use.node.input) > 2 and use.node.input[2]:
        columns = weight.shape[0] if use.node.op_type == "Conv" or plain else weight.shape[1]
        stored.append(onnx.numpy_helper.from_array(_zeros(columns), "bias"))
        inputs.append("bias")
    node = helper.make_node(use.node.op_type, inputs, ["y"], name="layer")
    node.attribute.extend(use.node.attribute)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    x = helper.make_tensor_value_info("x", kind, ["n", *array.shape[1:]])
    graph = helper.make_graph([node], "layer", [x], [onnx.ValueInfoProto(name="y")], stored)
    model = helper.make_model(graph, opset_imports=list(opsets), ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.save(model, path)
    return path


def _nothing(x: np.ndarray, opsets: Any, path: Path) -> Path:
    """A model that takes an input and computes nothing with it: what a call of any session costs."""
    import onnx

    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    inputs = [helper.make_tensor_value_info("x", kind, x.shape)]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [x.ndim])]
    graph = helper.make_graph([helper.make_node("Shape", ["x"], ["y"])], "nothing", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=list(opsets), ir_version=10), path)
    return path


def _conversions(x: np.ndarray, z: np.ndarray, opsets: Any, path: Path) -> Path:
    """A model that only converts a layer's input to int8 and its output back."""
    import numpy as np
    import onnx

    helper = onnx.helper
    scale = onnx.numpy_helper.from_array(np.float32(0.05), "scale")
    zero = onnx.numpy_helper.from_array(np.uint8(128), "zero")
    levels = onnx.TensorProto.UINT8
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["levels"]),
        helper.make_node("QuantizeLinear", ["z", "scale", "zero"], ["inner"]),
        helper.make_node("DequantizeLinear", ["inner", "scale", "zero"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape) for n, a in (("x", x), ("z", z))
    ]
    outputs = [
        helper.make_tensor_value_info("levels", levels, x.shape),
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, z.shape),
    ]
    graph = helper.make_graph(nodes, "around", inputs, outputs, [scale, zero])
    onnx.save(helper.make_model(graph, opset_imports=list(opsets), ir_version=10), path)
    return path


def _zeros(count: int) -> np.ndarray:
    import numpy as np

    return np.zeros(count, np.float32)
