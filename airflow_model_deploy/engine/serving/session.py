"""An ONNX Runtime session made from the servable's settings; knows no protocol."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from . import logs
from .cpus import available_cpus
from .datatypes import NUMPY_NAMES, RUNTIME_NAMES
from .servable import Servable, ServableRefusedError, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

Arrays = dict[str, "np.ndarray[Any, Any]"]

_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
# ONNX Runtime's errors share no base but Exception.
_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.InvalidArgument,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_RUN_ERRORS = (ort_errors.Fail, ort_errors.RuntimeException, ort_errors.NotImplemented, ort_errors.EPFail)


class UnfitInputError(Exception):
    """The runtime refuses these inputs; others may work."""


class RunFailedError(Exception):
    """The model failed while it ran."""


@dataclass(frozen=True)
class Session:
    """A loaded model.

    Args:
        runtime: ONNX Runtime's session.
        output_names: in the servable's order.
        threads: inside an operator.
        first_run_seconds: how long the warm-up took; a guess where there was none.
    """

    runtime: Any
    output_names: tuple[str, ...]
    threads: int
    first_run_seconds: float = 1.0

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run the model once.

        Raises:
            UnfitInputError: shapes that the graph refuses.
            RunFailedError: anything else that the runtime reports.
        """
        try:
            values = self.runtime.run(list(outputs), inputs)
        except ort_errors.InvalidArgument as error:
            raise UnfitInputError(_first_line(error)) from error
        except _RUN_ERRORS as error:
            raise RunFailedError(_first_line(error)) from error
        return dict(zip(outputs, values, strict=True))


def open_session(servable: Servable, threads: int | None = None) -> Session:
    """Load the model, hold it against the servable's signature and run it once.

    Args:
        servable: what to load.
        threads: threads inside an operator, instead of the servable's own number.

    Raises:
        ServableRefusedError: the runtime can't load or run it, or its signature isn't the declared one.
    """
    settings = servable.session
    intra = min(threads or settings.intra_op_threads, available_cpus())
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra
    options.inter_op_num_threads = min(settings.inter_op_threads, available_cpus())
    options.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, _LEVELS[settings.graph_optimization_level]
    )
    options.log_severity_level = 3
    # A spinning thread answers a little sooner and burns a core that other models on the host need.
    spinning = "1" if settings.allow_spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    # Threads that are started later inherit it from the one that loads the model.
    options.add_session_config_entry("session.set_denormal_as_zero", str(int(settings.denormals_as_zero)))
    try:
        runtime = ort.InferenceSession(
            str(servable.model),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(settings.disabled_optimizers),
        )
    except _LOAD_ERRORS as error:
        raise ServableRefusedError(f"{servable.model.name}: can't be loaded: {_first_line(error)}") from error
    _refuse_other_signature("input", servable.inputs, runtime.get_inputs())
    _refuse_other_signature("output", servable.outputs, runtime.get_outputs())
    session = Session(runtime, tuple(t.name for t in servable.outputs), intra)
    started = time.perf_counter()
    if not _warm_up(session, servable):
        return session
    return replace(session, first_run_seconds=time.perf_counter() - started)


def _refuse_other_signature(kind: str, declared: Sequence[Tensor], found: Sequence[Any]) -> None:
    nodes = {node.name: node for node in found}
    if set(nodes) != {t.name for t in declared}:
        raise ServableRefusedError(
            f"signature: {kind}s are {sorted(nodes)} in the model, declared are {[t.name for t in declared]}"
        )
    for tensor in declared:
        node = nodes[tensor.name]
        if node.type != RUNTIME_NAMES[tensor.datatype]:
            raise ServableRefusedError(
                f"signature: {kind} {tensor.name!r} is {node.type} in the model, declared {tensor.datatype}"
            )
        # The optimizer may lose the shapes of outputs, never those of inputs.
        if kind == "input" and not _shapes_agree(tensor.shape, node.shape):
            raise ServableRefusedError(
                f"signature: input {tensor.name!r} has shape {node.shape} in the model, "
                f"declared is {list(tensor.shape)}"
            )


def _shapes_agree(declared: Sequence[int], found: Sequence[Any]) -> bool:
    if len(declared) != len(found):
        return False
    return all(d == -1 or not isinstance(f, int) or d == f for d, f in zip(declared, found, strict=True))


def _warm_up(session: Session, servable: Servable) -> bool:
    zeros: Arrays = {
        t.name: np.zeros([1 if d == -1 else d for d in t.shape], dtype=NUMPY_NAMES[t.datatype])
        for t in servable.inputs
    }
    try:
        session.run(zeros, session.output_names)
    except (UnfitInputError, RunFailedError) as error:
        # Size 1 is a guess where more than the batch varies: then only a request can tell.
        if all(-1 not in t.shape[1:] for t in servable.inputs):
            raise ServableRefusedError(f"{servable.model.name}: can't run on zeros: {error}") from error
        logs.warning("warm-up skipped", reason=str(error))
        return False
    return True


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
