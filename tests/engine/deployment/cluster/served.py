"""Small real models that behave, and that misbehave in one way each, as servables and as pushed images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
from airflow_model_deploy.engine.packaging import write_servable
from airflow_model_deploy.engine.packaging.images import OciBuilder, model_spec
from airflow_model_deploy.engine.probing import Tolerance, make_golden
from tests.engine.deployment.cluster.misbehaving import (
    HIGH,
    LIMIT,
    MEMORY_BYTES,
    Graph,
    impossible_shape,
    is_high,
    much_memory,
    products,
)
from tests.engine.packaging.on_engine import build_runtime
from tests.engine.serving.servables import BIAS, WEIGHT, expected, save

if TYPE_CHECKING:
    from airflow_model_deploy.engine.probing import GoldenSet

__all__ = [
    "HIGH",
    "KINDS",
    "LIMIT",
    "MEMORY_BYTES",
    "Kind",
    "Served",
    "answer",
    "missing_image",
    "push",
    "write_kind",
]

NAME = "tiny"
REPOSITORY = "tests/cluster-models"
_TOLERANCE = Tolerance(1e-4, 1e-4, "float32 against the formula in float64")


@dataclass(frozen=True)
class Kind:
    """What a model does.

    Args:
        scale: of its answers.
        promised: of the answers in its golden.json; None: the same.
        extra: what else it computes; None: nothing.
        columns: of its input, as its servable has it; the model's has four.
    """

    scale: float = 1.0
    promised: float | None = None
    extra: Callable[[], Graph] | None = None
    columns: int = 4


@dataclass(frozen=True)
class Served:
    """A model's image and servable.

    Args:
        kind: the key in `KINDS`, and the version that the server answers with.
        image: "registry/repository@sha256:...".
        servable: the folder with servable.json, golden.json and model.onnx.
    """

    kind: str
    image: str
    servable: Path


def answer(version: str, rows: list[list[float]]) -> np.ndarray[Any, Any]:
    """What the model of this version says, by the formula in float64: the oracle of every kind."""
    return expected(rows, KINDS[version].scale)


def write_kind(folder: Path, name: str) -> Path:
    """Write the servable of one kind of model; the same kind gives the same bytes."""
    kind = KINDS[name]
    model = folder.with_name(f"{folder.name}.onnx")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _save(kind, model)
    write_servable(
        folder,
        model=model,
        name=NAME,
        version=name,
        signature=Signature(
            (TensorSpec("x", ("batch", kind.columns), "float32"),),
            (TensorSpec("y", ("batch", 3), "float32"),),
        ),
        session={"intra_op_threads": 1, "inter_op_threads": 1},
        precision="fp32",
        golden=_golden(kind.scale if kind.promised is None else kind.promised),
    )
    return folder


def push(registry: str, name: str, servable: Path) -> Served:
    """Build the image of a servable into a registry; what is there already is only read."""
    builder = OciBuilder()
    runtime = build_runtime(builder, f"{registry}/python:3.11-slim", registry)
    built = builder.build(model_spec(runtime.reference, servable), f"{registry}/{REPOSITORY}", log=print)
    return Served(name, built.reference, servable)


def missing_image(registry: str) -> str:
    """An image by a digest that the registry doesn't have."""
    return f"{registry}/{REPOSITORY}@sha256:{'0' * 64}"


def _golden(scale: float) -> GoldenSet:
    rows = np.random.default_rng(3).uniform(-1, 1, (5, 4)).astype(np.float32)
    answers = {"y": expected(rows.tolist(), scale).astype(np.float32)}
    tolerance = {"y": _TOLERANCE}
    return make_golden({"x": rows}, answers, answers, original_tolerance=tolerance, built_tolerance=tolerance)


def _save(kind: Kind, path: Path) -> None:
    nodes, constants = [helper.make_node("Gemm", ["x", "w", "b"], ["plain"])], {}
    constants = {"w": (WEIGHT * kind.scale).astype(np.float32), "b": (BIAS * kind.scale).astype(np.float32)}
    if kind.extra is None:
        nodes.append(helper.make_node("Identity", ["plain"], ["y"]))
    else:
        more, its_constants = kind.extra()
        nodes += [*is_high(), *more, helper.make_node("Add", ["plain", "extra"], ["y"])]
        constants |= {"limit": np.float32(LIMIT), "zero": np.zeros(1, np.float32)} | its_constants
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    save(graph, path)


KINDS = {
    "good": Kind(),
    "better": Kind(scale=2.0),
    "wrong": Kind(scale=1.5, promised=1.0),
    "fails_on_some": Kind(extra=impossible_shape),
    "slow_on_some": Kind(extra=products(1000, 0)),
    "crashes_on_start": Kind(columns=5),
    "needs_memory": Kind(extra=much_memory),
    "never_ready": Kind(extra=products(0, 10**9)),
}
"""By version; what each is for:

good, better: right, and different from each other.
wrong: its golden.json promises other answers than it gives.
fails_on_some: 500 where a value is above LIMIT.
slow_on_some: half a second of computing where a value is above LIMIT.
crashes_on_start: the server refuses the servable (exit code 3): the model's input isn't the declared one.
needs_memory: the warm-up takes MEMORY_BYTES.
never_ready: the warm-up takes days; as process 1 the server doesn't hear SIGTERM meanwhile.
"""
