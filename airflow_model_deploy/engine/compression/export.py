"""Turns a torch model into one ONNX file: quiet, checked against torch, the same bytes for the same model."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.compression.cost import output_tensors
from airflow_model_deploy.engine.compression.forward import forward, takes_names
from airflow_model_deploy.engine.compression.normal_form import normalised
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import create_session, dynamic_sizes, save_onnx, with_other_size
from airflow_model_deploy.engine.models import run as run_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from onnx import GraphProto, ModelProto
    from torch import Tensor, nn

_LARGEST = 1_500_000_000  # bytes; protobuf itself ends at 2 GB
_TOLERANCE = 1e-3
_INTERIM = "model_deploy_output_"
_LOUD = ("torch", "torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")
_FORWARD_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)


def export_onnx(
    model: nn.Module,
    example_inputs: Mapping[str, Tensor],
    path: str | Path,
    *,
    output_names: Sequence[str] | None = None,
    dynamic: Literal["batch"] | None = "batch",
    dynamic_dims: Mapping[str, Mapping[int, str]] | None = None,
    opset: int = 20,
) -> None:
    """Export in eval mode and verify the file against torch on the example, at two sizes of all that may vary.

    Args:
        model: left as it was.
        example_inputs: name -> tensor, dimension 0 = samples. Forward is called by these names where it has
            them, else in their order.
        path: the file to write; replaced only once the new one is verified.
        output_names: one a tensor that forward returns. By default the keys of a returned dict, else
            "output", or "output_0", "output_1", ...
        dynamic: "batch" lets dimension 0 of every input and output vary; None fixes it.
        dynamic_dims: what else may vary: input -> dimension -> its name, e.g. {"tokens": {1: "sequence"}}; the
            same name is the same size.
        opset: ONNX operator set. From 23 on, quantization cannot handle attention.

    Raises:
        InputError: forward fails, the exporter refuses, or the file computes something else (an error above
            1e-3 of the largest output).
    """
    import torch

    path = Path(path)
    _check_size(model)
    batch = _batch_of(example_inputs)
    example = dict(example_inputs)
    if dynamic == "batch" and batch == 1:  # torch.export takes a batch of 1 for a constant
        example = {name: torch.cat([t, t]) for name, t in example.items()}
    dims = dynamic_dims or {}
    others = _other_sizes(example, dynamic, dims)
    training = model.training
    model.eval()
    try:
        outputs = _forward(model, example)
        chosen = _output_names(outputs, output_names)
        proto = _export(model, example, chosen, _shapes(example, dynamic, dims), opset)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            save_onnx(normalised(proto), temporary)
            _verify(model, temporary, [example, *others])
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    finally:
        model.train(training)


def _check_size(model: nn.Module) -> None:
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if size > _LARGEST:
        raise InputError(
            f"size of {type(model).__name__}",
            found=f"{size} bytes of weights",
            wanted=f"at most {_LARGEST}",
            remedy="Prune the model, or cast it to a narrower type; larger models take the checkpoint route.",
        )


def _batch_of(example_inputs: Mapping[str, Tensor]) -> int:
    sizes = {name: t.shape[0] if t.dim() else None for name, t in example_inputs.items()}
    first = next(iter(sizes.values()), None)
    if not first or set(sizes.values()) != {first}:
        raise InputError(
            "example inputs", found=f"samples {sizes}", wanted="at least one input, each with as many samples"
        )
    return first


def _other_sizes(
    example: dict[str, Tensor], dynamic: str | None, dims: Mapping[str, Mapping[int, str]]
) -> list[dict[str, Tensor]]:
    """The example once more for everything that may vary: another size shows what forward has baked in."""
    import torch

    others = []
    if dynamic == "batch":
        others.append({name: torch.cat([t, t[:1]]) for name, t in example.items()})
    arrays = {name: t.detach().numpy() for name, t in example.items()}
    for label in dynamic_sizes(dims, arrays):
        changed = with_other_size(dims, arrays, label)
        others.append({name: torch.from_numpy(array) for name, array in changed.items()})
    return others


def _shapes(
    example: dict[str, Tensor], dynamic: str | None, dims: Mapping[str, Mapping[int, str]]
) -> dict[str, dict[int, Any]] | None:
    """What torch.export is to leave open. Of a dimension given by its name alone it finds the bounds itself."""
    import torch

    if dynamic is None and not dims:
        return None
    batch = {0: torch.export.Dim("batch", min=1)} if dynamic == "batch" else {}
    return {name: {**batch, **dims.get(name, {})} for name in example}


def _forward(model: nn.Module, example: dict[str, Tensor]) -> Any:
    import torch

    try:
        with torch.no_grad():
            return forward(model, example)
    except _FORWARD_ERRORS as error:
        shapes = [(tuple(t.shape), str(t.dtype)) for t in example.values()]
        raise InputError(
            f"forward of {type(model).__name__}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]} on inputs {shapes}",
            wanted="a forward that takes the example inputs",
            remedy="Correct the example inputs or the model.",
        ) from error


def _output_names(outputs: Any, wanted: Sequence[str] | None) -> list[str]:
    count = len(output_tensors(outputs))
    if count == 0:
        raise InputError("what forward returns", found=type(outputs).__name__, wanted="tensors")
    if wanted is not None:
        if len(wanted) != count or len(set(wanted)) != count:
            raise InputError("output_names", found=list(wanted), wanted=f"{count} different names")
        return list(wanted)
    if isinstance(outputs, dict) and len(outputs) == count:
        return [str(key) for key in outputs]
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def _export(
    model: nn.Module,
    example: dict[str, Tensor],
    outputs: list[str],
    shapes: dict[str, dict[int, Any]] | None,
    opset: int,
) -> ModelProto:
    import torch

    named = takes_names(model, example)
    in_order = tuple(shapes.values()) if shapes else None
    try:
        _forget_recurrent_kernels()
        with _quiet():
            program = torch.onnx.export(
                model,
                () if named else tuple(example.values()),
                kwargs=example if named else None,
                input_names=list(example),
                output_names=[f"{_INTERIM}{place}" for place in range(len(outputs))],
                dynamic_shapes=shapes if named else in_order,
                opset_version=opset,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            if program is None:
                raise InputError("export to ONNX", found="no program", wanted="an ONNX program")
            proto: ModelProto = _with_output_names(program.model_proto, outputs)
    except (torch.onnx.OnnxExporterError, *_FORWARD_ERRORS) as error:
        raise InputError(
            f"export of {type(model).__name__} to ONNX",
            found=_reason(error),
            wanted="a model that torch.export can trace"
            + (" with any size of what may vary" if shapes else ""),
            remedy="Take Python branches on tensor values, and fixed sizes of what may vary, out of forward.",
        ) from error
    return proto


def _with_output_names(proto: ModelProto, outputs: list[str]) -> ModelProto:
    """Name the outputs, in place. The exporter itself would not mind a value inside that has such a name already.

    Values are named after torch's operators, so "embedding" is taken in every model with an embedding.
    """
    names = {f"{_INTERIM}{place}": name for place, name in enumerate(outputs)}
    graphs = list(_graphs(proto.graph))
    taken = {value for graph in graphs for node in graph.node for value in node.output} - set(names)
    taken |= {tensor.name for graph in graphs for tensor in graph.initializer}
    for name in taken & set(outputs):
        count = next(i for i in itertools.count(1) if f"{name}_{i}" not in taken)
        names[name] = f"{name}_{count}"
    for graph in graphs:
        for node in graph.node:
            node.input[:] = [names.get(value, value) for value in node.input]
            node.output[:] = [names.get(value, value) for value in node.output]
        for item in (*graph.output, *graph.value_info, *graph.initializer):
            item.name = names.get(item.name, item.name)
    return proto


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those inside its nodes, which may read its values."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _forget_recurrent_kernels() -> None:
    """Let the exporter put in its own LSTM and GRU, whose sequence may vary, on every export.

    It registers them for the time of an export, but torch goes on using the ones that it has looked up before.
    """
    import torch

    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        cache = getattr(operator, "_dispatch_cache", None)
        if cache is not None:
            cache.clear()


def _reason(error: BaseException) -> str:
    """The innermost cause; the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:500]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what exporters print; their errors still come through."""
    loggers = [logging.getLogger(n) for n in _LOUD]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _verify(model: nn.Module, path: Path, examples: list[dict[str, Tensor]]) -> None:
    session = create_session(path)
    for example in examples:
        want = [t.numpy() for t in output_tensors(_forward(model, example))]
        got = run_session(session, {name: t.detach().numpy() for name, t in example.items()})
        for (name, found), wanted in zip(got.items(), want, strict=True):
            _compare(name, found, wanted)


def _compare(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    import numpy as np

    a, b = found.astype(np.float64), wanted.astype(np.float64)
    error = float(np.abs(a - b).max()) if a.shape == b.shape and a.size else float("inf")
    scale = float(np.abs(b).max()) if b.size else 0.0
    if not error <= _TOLERANCE * max(scale, 1e-6):  # a NaN is no match either
        raise InputError(
            f"output {name} of the exported file",
            found=f"shape {a.shape}, largest error {error:.3g}",
            wanted=f"torch's answer: shape {b.shape}, within {_TOLERANCE} of {scale:.3g}",
            remedy="Look for operations in forward whose result depends on more than the inputs.",
        )
