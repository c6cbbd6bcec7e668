"""Turns a torch model into one ONNX file: quiet, checked against torch, the same bytes for the same model."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.compression.cost import output_tensors
from airflow_model_deploy.engine.compression.normal_form import normalised
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import create_session, save_onnx
from airflow_model_deploy.engine.models import run as run_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto
    from torch import Tensor, nn

_LARGEST = 1_500_000_000  # bytes; protobuf itself ends at 2 GB
_TOLERANCE = 1e-3
_LOUD = ("torch", "torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")
_FORWARD_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)


def export_onnx(
    model: nn.Module,
    example_inputs: Mapping[str, Tensor],
    path: str | Path,
    *,
    output_names: Sequence[str] | None = None,
    dynamic: Literal["batch"] | None = "batch",
    opset: int = 20,
) -> None:
    """Export in eval mode and verify the file against torch on the example, at two batch sizes.

    Args:
        model: left as it was.
        example_inputs: name -> tensor, in the order of forward's arguments, dimension 0 = samples.
        path: the file to write; replaced only once the new one is verified.
        output_names: one a tensor that forward returns. By default the keys of a returned dict, else
            "output", or "output_0", "output_1", ...
        dynamic: "batch" lets dimension 0 of every input and output vary; None fixes it.
        opset: ONNX operator set. From 23 on, quantization cannot handle attention.

    Raises:
        InputError: forward fails, the exporter refuses, or the file computes something else (an error above
            1e-3 of the largest output).
    """
    import torch

    path = Path(path)
    _check_size(model)
    names = list(example_inputs)
    batch = _batch_of(example_inputs)
    tensors = tuple(example_inputs.values())
    if dynamic == "batch" and batch == 1:
        tensors = tuple(torch.cat([t, t]) for t in tensors)  # torch.export takes a batch of 1 for a constant
    training = model.training
    model.eval()
    try:
        outputs = _forward(model, tensors)
        chosen = _output_names(outputs, output_names)
        proto = _export(model, tensors, names, chosen, dynamic, opset)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            save_onnx(normalised(proto), temporary)
            _verify(model, temporary, names, tensors, dynamic)
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


def _forward(model: nn.Module, tensors: tuple[Tensor, ...]) -> Any:
    import torch

    try:
        with torch.no_grad():
            return model(*tensors)
    except _FORWARD_ERRORS as error:
        shapes = [(tuple(t.shape), str(t.dtype)) for t in tensors]
        raise InputError(
            f"forward of {type(model).__name__}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]} on inputs {shapes}",
            wanted="a forward that takes the example inputs, in their order",
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
    tensors: tuple[Tensor, ...],
    names: list[str],
    outputs: list[str],
    dynamic: str | None,
    opset: int,
) -> ModelProto:
    import torch

    shapes = tuple({0: torch.export.Dim("batch", min=1)} for _ in tensors) if dynamic == "batch" else None
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                tensors,
                input_names=names,
                output_names=outputs,
                dynamic_shapes=shapes,
                opset_version=opset,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            if program is None:
                raise InputError("export to ONNX", found="no program", wanted="an ONNX program")
            proto: ModelProto = program.model_proto
    except (torch.onnx.OnnxExporterError, *_FORWARD_ERRORS) as error:
        raise InputError(
            f"export of {type(model).__name__} to ONNX",
            found=_reason(error),
            wanted="a model that torch.export can trace" + (" with any batch size" if dynamic else ""),
            remedy="Take Python branches on tensor values, and fixed batch sizes, out of forward.",
        ) from error
    return proto


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


def _verify(
    model: nn.Module, path: Path, names: list[str], tensors: tuple[Tensor, ...], dynamic: str | None
) -> None:
    import torch

    session = create_session(path)
    batches = [tensors]
    if dynamic == "batch":  # another size shows a batch that forward has baked in
        batches.append(tuple(torch.cat([t, t[:1]]) for t in tensors))
    for batch in batches:
        want = [t.numpy() for t in output_tensors(_forward(model, batch))]
        got = run_session(session, {n: t.detach().numpy() for n, t in zip(names, batch, strict=True)})
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
