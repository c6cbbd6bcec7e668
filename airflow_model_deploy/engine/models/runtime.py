"""Runs ONNX files with ONNX Runtime on numpy arrays; knows nothing of requests and servers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from onnxruntime import InferenceSession, SessionOptions

OptimizationLevel = Literal["disable", "basic", "extended", "layout", "all"]

_ELEMENT_TYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bfloat16": "bfloat16", "bool": "bool",
    "string": "object",
}  # fmt: skip


@dataclass(frozen=True)
class SessionSettings:
    """How a model file is served: the `session` block of servable.json.

    Args:
        intra_op_threads: threads within one operator; 0 lets ONNX Runtime take every core.
        inter_op_threads: threads over operators.
        graph_optimization_level: what ONNX Runtime may rewrite at load.
        disabled_optimizers: its optimizers, by name, that may not run.
        allow_spinning: whether idle threads burn CPU while they wait.
        denormals_as_zero: whether numbers below 1.2e-38 count as zero. Masked attention makes many of them, and
            some CPUs compute with them a hundred times slower. It takes effect in the server: ONNX Runtime sets it
            for the whole process, where other arithmetic than a model's may go on.
    """

    intra_op_threads: int = 1
    inter_op_threads: int = 1
    graph_optimization_level: OptimizationLevel = "all"
    disabled_optimizers: tuple[str, ...] = ()
    allow_spinning: bool = False
    denormals_as_zero: bool = True

    def __post_init__(self) -> None:
        if self.graph_optimization_level not in get_args(OptimizationLevel):
            raise InputError(
                "graph_optimization_level",
                found=self.graph_optimization_level,
                wanted=" | ".join(get_args(OptimizationLevel)),
            )
        if self.intra_op_threads < 0 or self.inter_op_threads < 0:
            raise InputError(
                "threads", found=(self.intra_op_threads, self.inter_op_threads), wanted="0 or more"
            )

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "disabled_optimizers": list(self.disabled_optimizers)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SessionSettings:
        """The inverse of `to_json`."""
        return cls(**{**value, "disabled_optimizers": tuple(value.get("disabled_optimizers", ()))})


def ort_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its error classes have no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [getattr(state, name) for name in dir(state)]
    return (*(e for e in found if isinstance(e, type) and issubclass(e, Exception)), RuntimeError, ValueError)


def session_options(settings: SessionSettings) -> SessionOptions:
    """ONNX Runtime's options of these settings; it logs errors only."""
    import onnxruntime as ort

    levels = {
        "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        # Versions before ORT_ENABLE_LAYOUT knew it as a part of "all" only.
        "layout": getattr(
            ort.GraphOptimizationLevel, "ORT_ENABLE_LAYOUT", ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        ),
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    options.graph_optimization_level = levels[settings.graph_optimization_level]
    options.log_severity_level = 3
    spinning = "1" if settings.allow_spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    return options


def create_session(
    path: str | Path, settings: SessionSettings | None = None, *, optimized_file: str | Path | None = None
) -> InferenceSession:
    """Load an ONNX file on the CPU.

    Args:
        path: the file.
        settings: how to load it; by default as a server does: one thread, every optimization.
        optimized_file: where ONNX Runtime also writes the graph as it optimized it.
    """
    import onnxruntime as ort

    settings = settings or SessionSettings()
    options = session_options(settings)
    if optimized_file is not None:
        options.optimized_model_filepath = str(optimized_file)
    if not Path(path).is_file():
        raise InputError(f"model {path}", found="no such file", wanted="an ONNX file")
    try:
        return ort.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(settings.disabled_optimizers) or None,
        )
    except ort_errors() as error:
        raise InputError(
            f"model {path}",
            found=f"ONNX Runtime {ort.__version__} refuses it: {' '.join(str(error).split())[:400]}",
            wanted="a valid ONNX graph of operators that this ONNX Runtime has",
            remedy="Export it again with an older opset, or without the operator named here.",
        ) from error


def run(
    session: InferenceSession,
    inputs: Mapping[str, np.ndarray],
    *,
    batch_size: int | None = None,
    override: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Outputs by name, for all samples.

    Args:
        session: from `create_session`.
        inputs: name -> array, dimension 0 = samples.
        batch_size: samples a call; all at once by default. A graph with a fixed batch is always called with
            that many (the last call is filled up with repeated rows, whose answers are dropped).
        override: initializers that are inputs, too, by name: what every call takes in their place.
    """
    import numpy as np

    samples = _check_inputs(session, inputs)
    if batch_size is not None and batch_size < 1:
        raise InputError("batch_size", found=batch_size, wanted="at least 1")
    fixed = next((i.shape[0] for i in session.get_inputs() if i.shape and isinstance(i.shape[0], int)), None)
    step = fixed or batch_size or samples
    names = [output.name for output in session.get_outputs()]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for begin in range(0, samples, step):
        rows = min(step, samples - begin)
        batch = {name: np.ascontiguousarray(array[begin : begin + rows]) for name, array in inputs.items()}
        if fixed and rows < fixed:
            batch = {name: np.resize(array, (fixed, *array.shape[1:])) for name, array in batch.items()}
        for name, value in zip(names, _call(session, {**batch, **(override or {})}), strict=True):
            parts[name].append(_rows(name, value, step if fixed else rows)[:rows])
    return {name: values[0] if len(values) == 1 else np.concatenate(values) for name, values in parts.items()}


def _rows(name: str, value: np.ndarray, rows: int) -> np.ndarray:
    shape = getattr(value, "shape", None)
    if not shape or shape[0] != rows:
        raise InputError(
            f"output {name}",
            found=f"shape {shape} for {rows} samples",
            wanted="one row a sample",
            remedy="Export the model so that dimension 0 of each output is the batch.",
        )
    return value


def _call(session: InferenceSession, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        return list(session.run(None, batch))
    except ort_errors() as error:
        shapes = {name: array.shape for name, array in batch.items()}
        wanted = {i.name: i.shape for i in session.get_inputs()}
        raise InputError(
            "running the model",
            found=f"inputs of shapes {shapes}: {' '.join(str(error).split())[:300]}",
            wanted=f"inputs that fit {wanted}",
        ) from error


def _check_inputs(session: InferenceSession, inputs: Mapping[str, np.ndarray]) -> int:
    """The number of samples, once every array fits the model."""
    wanted = {i.name: i for i in session.get_inputs()}
    if set(wanted) != set(inputs):
        raise InputError(
            "inputs of the model",
            found=sorted(inputs),
            wanted=sorted(wanted),
            remedy="Name the arrays alike.",
        )
    for name, array in inputs.items():
        kind = str(wanted[name].type).removeprefix("tensor(").removesuffix(")")
        dtype = _ELEMENT_TYPES.get(kind, kind)
        if array.dtype.name != dtype:
            raise InputError(
                f"input {name}",
                found=array.dtype.name,
                wanted=dtype,
                remedy=f"Convert it with .astype({dtype!r}).",
            )
        _check_shape(name, array.shape, wanted[name].shape)
    counts = {name: array.shape[0] for name, array in inputs.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise InputError("samples of the inputs", found=counts, wanted="the same number, at least 1, in each")
    return int(next(iter(counts.values())))


def _check_shape(name: str, found: tuple[int, ...], wanted: list[Any]) -> None:
    fits = len(found) == len(wanted) and len(found) > 0
    if not fits or any(isinstance(w, int) and w != f for f, w in zip(found[1:], wanted[1:], strict=True)):
        raise InputError(f"input {name}", found=f"shape {found}", wanted=f"shape {tuple(wanted)}")
