"""Measures how much a model's answers change when one layer alone is given another format."""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression.bit_losses import WIDTHS, WeightRounding
from airflow_model_deploy.engine.compression.calibration import check_calibration
from airflow_model_deploy.engine.compression.layer_costs import layer_costs
from airflow_model_deploy.engine.compression.mixed import build_mixed
from airflow_model_deploy.engine.compression.outliers import largest_activations
from airflow_model_deploy.engine.compression.weight_nodes import (
    open_for_rewriting,
    weighted_nodes,
    weights_of,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import create_session, file_size, run
from airflow_model_deploy.engine.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from airflow_model_deploy.engine.compression.weight_nodes import Format, WeightedNode

    Answers = Mapping[str, np.ndarray]

logger = logging.getLogger(__name__)

CONVOLUTIONS: tuple[Format, ...] = ("int8-static",)
PRODUCTS: tuple[Format, ...] = ("int8-dynamic", "int8-smooth", "int8-outlier", "int8-weight")
_SEEN = ("int8-smooth", "int8-outlier")  # formats that need to see activations
_LARGEST = 200_000_000  # bytes of a model whose weights are rounded to other widths, too
_BLOCK = 32  # weights that share a scale in "int4-weight"
_SHARE = 1 / 3  # of the samples that the formats are tried with, spent on other widths at most


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer: what each format costs, and how much the answers lose by it when the rest stays as it is.

    Args:
        layer: the node's name.
        op: its operator.
        elements: of its weight.
        losses: by format; fp32 is 0. A format that breaks the model, or can't keep any budget, is not in it.
        milliseconds: CPU time of the layer alone for one request, by format.
        bytes: of its weights, by format.
        bits: what rounding its weights alone to so many bits would lose; {} where that was not measured.
    """

    layer: str
    op: str
    elements: int
    losses: dict[str, float]
    milliseconds: dict[str, float]
    bytes: dict[str, int]
    bits: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LayerSensitivity:
        """The inverse of `to_json`; keys that it does not know are left out."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__ if name in value})


def treatments(source: str | Path, formats: Sequence[Format] | None = None) -> dict[str, tuple[Format, ...]]:
    """The formats worth trying for each layer: those asked for, or what suits the kind of model.

    A graph with convolutions is quantized statically, for ONNX Runtime keeps int8 between its layers; any other has
    its matrix products quantized with ranges found at run time.
    """
    nodes = weighted_nodes(source)
    if formats is None:
        convolutional = any(node.op_type in ("Conv", "ConvTranspose") for node in nodes)
        formats = CONVOLUTIONS if convolutional else PRODUCTS
    offered = {node.name: _offered(node, formats) for node in nodes}
    if not any(offered.values()):
        raise InputError(
            f"formats for the layers of {Path(source).name}",
            found=f"none of {', '.join(formats)} applies to its {len(nodes)} layers with stored float32 weights",
            wanted="a float32 model with Conv, MatMul, Gemm or Gather layers",
            remedy="Give the float model, or other formats.",
        )
    return {name: kinds for name, kinds in offered.items() if kinds}


def _offered(node: WeightedNode, formats: Sequence[Format]) -> tuple[Format, ...]:
    fitting = tuple(f for f in formats if f in node.formats and f != "fp32")
    if node.op_type == "Gather":  # both are the same for a lookup
        return tuple(f for f in fitting if f != "int8-weight" or "int8-dynamic" not in fitting)
    return fitting


def analyse(
    source: str | Path,
    offered: Mapping[str, Sequence[Format]],
    feed: Mapping[str, np.ndarray],
    *,
    loss: Callable[[Answers, Answers], float],
    calibration: Mapping[str, np.ndarray],
    request: Mapping[str, np.ndarray],
    batch_size: int = 16,
    activations: Mapping[str, np.ndarray] | None = None,
    most: float = math.inf,
) -> tuple[LayerSensitivity, ...]:
    """Build the model once for each layer and format, with that layer alone changed, and compare the answers.

    Of models up to 200 MB, the loss by rounding each layer's weights to other widths is measured as well, with so
    few samples that it costs at most a third.

    Args:
        source: the float model.
        offered: layer -> formats, from `treatments`.
        feed: samples whose answers are compared.
        loss: loss(the original's answers, the changed model's) >= 0; it should add up over layers, as mean squared
            errors and 1 - cosine do while they are small.
        calibration: samples that ranges and outlier channels are taken from.
        request: one request, for the costs.
        batch_size: samples a run.
        activations: what `activations_of` has found before.
        most: a loss that no plan can pay. "int4-weight" is not tried where its weights alone lose more.
    """
    source = Path(source)
    if any(wanted in ("int8-static", *_SEEN) for formats in offered.values() for wanted in formats):
        check_calibration(source, calibration, batch_size)
    nodes = {node.name: node for node in weighted_nodes(source)}
    costs = layer_costs(source, offered, request)
    original = run(create_session(source), feed, batch_size=batch_size)
    if activations is None:
        activations = activations_of(source, offered, calibration, batch_size)
    rounding = _rounding(source, offered, feed, loss, batch_size)
    found = []
    for name in progress(list(offered), "layers"):
        bits = {str(width): rounding.loss(name, width) for width in WIDTHS} if rounding else {}
        losses = {"fp32": 0.0}
        for wanted in offered[name]:
            if wanted == "int4-weight" and rounding and rounding.loss(name, 4, block=_BLOCK) > most:
                logger.info("%s: int4-weight loses too much", name)
                continue
            with tempfile.TemporaryDirectory(prefix="sensitivity-") as folder:
                path = Path(folder) / "model.onnx"
                build_mixed(
                    source, path, {name: wanted}, calibration=calibration, batch_size=batch_size,
                    activations=activations or None,
                )  # fmt: skip
                lost = loss(original, run(create_session(path), feed, batch_size=batch_size))
            if math.isfinite(lost):
                losses[wanted] = lost
            else:
                logger.warning("%s: %s breaks the model's answers", name, wanted)
        node, cost = nodes[name], costs[name]
        found.append(
            LayerSensitivity(
                name, node.op_type, node.elements, losses, cost.milliseconds, cost.bytes, _finite(bits)
            )
        )
    return tuple(found)


def _rounding(
    source: Path,
    offered: Mapping[str, Sequence[Format]],
    feed: Mapping[str, np.ndarray],
    loss: Callable[[Answers, Answers], float],
    batch_size: int,
) -> WeightRounding | None:
    """What measures other widths; None where that would cost too much."""
    tried = sum(len(formats) for formats in offered.values())
    rows = len(next(iter(feed.values())))
    few = int(_SHARE * rows * tried / (len(offered) * len(WIDTHS)))
    if few < 1 or file_size(source) > _LARGEST:
        return None
    part = {name: array[:few] for name, array in feed.items()}
    return WeightRounding(source, list(offered), part, loss, min(batch_size, few))


def _finite(losses: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in losses.items() if math.isfinite(value)}


def activations_of(
    source: Path,
    offered: Mapping[str, Sequence[Format]],
    calibration: Mapping[str, np.ndarray],
    batch_size: int,
) -> dict[str, np.ndarray]:
    """What `quantize_mixed` needs to know of activations for any of the formats offered; found in one pass."""
    seeing = [name for name, formats in offered.items() if set(formats) & set(_SEEN)]
    if not seeing:
        return {}
    check_calibration(source, calibration, batch_size)
    uses = weights_of(open_for_rewriting(source), source.parent)
    return largest_activations(source, [uses[n].node.input[0] for n in seeing], calibration, batch_size)
