"""What a model loses when the weights of one layer are rounded to b bits, for any b: no kernels are needed for it.

The weights become inputs that may be overridden, so one session serves all layers and widths.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression.affine import fake_quantize
from airflow_model_deploy.engine.compression.outliers import as_stored, product_form
from airflow_model_deploy.engine.compression.weight_nodes import (
    PLACES,
    attribute,
    drop_unused_weights,
    fresh,
    open_for_rewriting,
    weights_of,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import create_session, run, write_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

    from airflow_model_deploy.engine.compression.weight_nodes import NodeWeight

    Answers = Mapping[str, np.ndarray]

WIDTHS = (2, 3, 4, 6, 8)


def bit_losses(
    source: str | Path,
    nodes: Sequence[str],
    feed: Mapping[str, np.ndarray],
    loss: Callable[[Answers, Answers], float],
    bits: Iterable[int] = range(2, 17),
    *,
    batch_size: int = 16,
) -> dict[str, dict[int, float]]:
    """The loss of each layer alone, with its weights rounded to each width, a scale for each output channel.

    Args:
        source: a float model that fits into memory.
        nodes: names, as `weighted_nodes` has them.
        feed: samples whose answers are compared.
        loss: loss(the original's answers, the changed model's).
        bits: widths, 2 to 16.
        batch_size: samples a run.
    """
    widths = tuple(bits)
    rounding = WeightRounding(Path(source), nodes, feed, loss, batch_size)
    return {name: {width: rounding.loss(name, width) for width in widths} for name in nodes}


class WeightRounding:
    """A session in which the weights of some nodes can be replaced."""

    def __init__(
        self,
        source: Path,
        nodes: Sequence[str],
        feed: Mapping[str, np.ndarray],
        loss: Callable[[Answers, Answers], float],
        batch_size: int,
    ) -> None:
        model = open_for_rewriting(source)
        uses = weights_of(model, source.parent)
        missing = [name for name in nodes if name not in uses]
        if missing:
            raise InputError(
                "layers to round", found=f"node {missing[0]!r}", wanted="nodes with a stored float32 weight"
            )
        self._weights = {name: _as_read(uses[name]) for name in nodes}
        self._axes = {name: _output_axis(uses[name]) for name in nodes}
        self._names = _overridable(model, {name: uses[name] for name in nodes}, self._weights)
        self._feed, self._loss, self._batch = feed, loss, batch_size
        with tempfile.TemporaryDirectory(prefix="rounding-") as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, path, folder=source.parent)
            self._session = create_session(path)
        self._original = run(self._session, feed, batch_size=batch_size)

    def loss(self, name: str, bits: int, *, block: int | None = None) -> float:
        """What rounding one layer's weights costs.

        Args:
            name: the node's.
            bits: width of its weights, by the affine quantizer.
            block: of a matrix product: consecutive weights of an output channel that share a scale; None: all.
        """
        import numpy as np

        weight, axis = self._weights[name], self._axes[name]
        if block is None:
            rounded = fake_quantize(weight, bits, axis=axis)
        else:
            rounded = _rounded_in_blocks(weight, bits, axis, block)
        override = {self._names[name]: np.ascontiguousarray(rounded)}
        return self._loss(
            self._original, run(self._session, self._feed, batch_size=self._batch, override=override)
        )


def _as_read(use: NodeWeight) -> np.ndarray:
    """The weight as the node reads it, whatever stands between."""
    if use.node.op_type in ("MatMul", "Gemm"):
        return as_stored(use, product_form(use))
    return use.tensor.rows(0, use.tensor.shape[0])


def _output_axis(use: NodeWeight) -> int:
    """The dimension that counts output channels; of a lookup, the entries."""
    if use.node.op_type == "Gemm":
        return 0 if attribute(use.node, "transB", 0) == 1 else 1
    return 1 if use.node.op_type in ("MatMul", "ConvTranspose") else 0


def _rounded_in_blocks(weight: np.ndarray, bits: int, axis: int, block: int) -> np.ndarray:
    """Rounded with a scale for each block of an output channel; a last block is filled with zeros, which stay zero."""
    import numpy as np

    rows = weight if axis == 0 else weight.T
    depth = rows.shape[1]
    filled = np.pad(rows, ((0, 0), (0, -depth % block)))
    rounded = fake_quantize(filled.reshape(-1, block), bits, axis=0).reshape(filled.shape)[:, :depth]
    return rounded if axis == 0 else rounded.T


def _overridable(
    model: ModelProto, uses: Mapping[str, NodeWeight], weights: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """Give each node a weight of its own that is an input with a default; returns their names."""
    import onnx

    graph: Any = model.graph
    taken = Counter([value.name for value in (*graph.input, *graph.initializer)])
    taken.update(name for node in graph.node for name in node.output)
    found = {}
    for number, (name, use) in enumerate(uses.items()):
        found[name] = own = fresh(f"weight_{number}", taken)
        use.node.input[PLACES[use.node.op_type]] = own
        graph.initializer.append(onnx.numpy_helper.from_array(weights[name], own))
        kind = onnx.TensorProto.FLOAT
        graph.input.append(onnx.helper.make_tensor_value_info(own, kind, weights[name].shape))
    drop_unused_weights(graph)
    model.ir_version = max(model.ir_version, 4)  # the first in which an initializer need not be an input
    return found
