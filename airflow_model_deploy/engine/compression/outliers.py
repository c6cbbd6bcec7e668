"""Keeps a few large activation channels from costing all the others their resolution, by rewriting the float graph.

int8 activations share one scale. In transformers a few input channels of a layer are tens of times larger than the
rest, and the rest then has a few levels only. Two known remedies, both exact in float arithmetic:

- smoothing (SmoothQuant, Xiao et al. 2022, equation 4): x·W = (x / s)·(s·W) with
  s_j = max|x_j|^a / max|W_j|^(1-a), here rounded to a power of two, so that nothing is lost in the rewriting.
- outlier channels apart (LLM.int8(), Dettmers et al. 2022, section 3.2): the channels with the largest activations
  are multiplied in float, all others as before. Which they are is fixed by the calibration data.

Channels are judged by the activations of real data; the integer arithmetic itself is done by `mixed`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.compression.calibration import calibration_batches
from airflow_model_deploy.engine.compression.weight_nodes import (
    drop_unused_weights,
    fresh,
    open_for_rewriting,
    weights_of,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import ONE_FILE, create_session, file_size, fits_one_file, write_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

    from airflow_model_deploy.engine.compression.weight_nodes import Format, NodeWeight

ALPHA = 0.75  # how much of the difficulty moves from activations to weights; found on sentence encoders


def tame_outliers(
    source: Path,
    made: Path,
    formats: Mapping[str, Format],
    calibration: Mapping[str, np.ndarray],
    batch_size: int,
    activations: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Format]:
    """Rewrite the nodes of format "int8-smooth" and "int8-outlier"; returns formats for the file that was made.

    Nodes that share an input and a format share its scaled or split form. A layer of one or two input channels has
    no channels to set apart: its "int8-outlier" is plain "int8-dynamic".

    Args:
        source: a float model in one file.
        made: the file to write.
        formats: of any nodes; others are left alone.
        calibration: inputs of the model, by name, samples along dimension 0.
        batch_size: samples a run.
        activations: what `largest_activations` has found before, instead of looking again.
    """
    if not fits_one_file(file_size(source)):
        raise InputError(
            "formats int8-smooth and int8-outlier",
            found=f"a model of {file_size(source)} bytes",
            wanted=f"at most {ONE_FILE}: its activations have to be seen",
            remedy="Use int8-dynamic, int8-weight or int4-weight: they need no data.",
        )
    model = open_for_rewriting(source)
    uses = weights_of(model, source.parent)
    chosen = {name: wanted for name, wanted in formats.items() if wanted in ("int8-smooth", "int8-outlier")}
    values = [uses[name].node.input[0] for name in chosen]
    largest = activations or largest_activations(source, values, calibration, batch_size)
    rewriting = _Rewriting(model, largest)
    for wanted, rewrite in (("int8-smooth", rewriting.smooth), ("int8-outlier", rewriting.split)):
        groups: dict[str, list[NodeWeight]] = {}
        for name, format_ in chosen.items():
            if format_ == wanted:
                groups.setdefault(uses[name].node.input[0], []).append(uses[name])
        for value, group in groups.items():
            rewrite(value, group)
    rewriting.finish()
    write_onnx(model, made, folder=source.parent)
    return {**formats, **dict.fromkeys(chosen, "int8-dynamic")}


def largest_activations(
    source: Path, values: Sequence[str], calibration: Mapping[str, np.ndarray], batch_size: int
) -> dict[str, np.ndarray]:
    """max|x_j| of each channel j (the last dimension) of some values inside a graph, over all samples.

    Raises:
        InputError: one of them is not finite.
    """
    import numpy as np
    import onnx

    model = open_for_rewriting(source)
    inside = sorted(set(values))
    known = {output.name for output in model.graph.output} | {i.name for i in model.graph.input}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside if name not in known)
    with tempfile.TemporaryDirectory(prefix="activations-") as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, path, folder=source.parent)
        session = create_session(path)
    asked = [name for name in inside if name not in {i.name for i in model.graph.input}]
    found: dict[str, np.ndarray] = {}
    for batch in calibration_batches(calibration, batch_size):
        seen = dict(zip(asked, session.run(asked, batch), strict=True)) if asked else {}
        for name in inside:
            array = seen.get(name, batch.get(name))
            if array is None:
                raise TypeError(f"no value {name}")
            channels = np.abs(array.reshape(-1, array.shape[-1])).max(axis=0)
            found[name] = np.maximum(found[name], channels) if name in found else channels
    for name, channels in found.items():
        _check_finite(name, channels)
    return found


def _check_finite(name: str, channels: np.ndarray) -> None:
    import numpy as np

    strange = int((~np.isfinite(channels)).sum())
    if strange:
        raise InputError(
            f"activations {name}",
            found=f"NaN or infinity in {strange} of {len(channels)} channels",
            wanted="finite values",
            remedy="Look at the calibration data and at the model's answers for it.",
        )


class _Rewriting:
    """One pass over a graph. New nodes stand before the node that needs them."""

    def __init__(self, model: ModelProto, largest: Mapping[str, np.ndarray]) -> None:
        self.model = model
        self.largest = largest
        self._taken = Counter(
            [t.name for t in model.graph.initializer]
            + [name for node in model.graph.node for name in (*node.output, node.name)]
            + [i.name for i in model.graph.input]
        )
        self._before: dict[str, list[object]] = {}
        self._after: dict[str, list[object]] = {}

    def smooth(self, value: str, group: Sequence[NodeWeight]) -> None:
        """X / s once for all nodes of the group, s·W for each."""
        import numpy as np

        weights = [product_form(use) for use in group]
        rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
        scales = smoothing_scales(self.largest[value], rows)
        smoothed = self._node(
            "Mul", [value, self._store(1 / scales, f"{value}_smoothing")], group, "smoothed"
        )
        for use, weight in zip(group, weights, strict=True):
            use.node.input[0] = smoothed
            use.node.input[1] = self._store(
                as_stored(use, scales[:, None] * weight), f"{use.tensor.name}_smooth"
            )

    def split(self, value: str, group: Sequence[NodeWeight]) -> None:
        """The largest channels in float, the others with zeros in their places."""
        import numpy as np
        import onnx

        places = outlier_channels(self.largest[value])
        if not len(places):
            return
        kept = np.ones(len(self.largest[value]), np.float32)
        kept[places] = 0
        rest = self._node("Mul", [value, self._store(kept, f"{value}_kept")], group, "rest")
        index = self._store(places, f"{value}_outliers")
        large = self._node("Gather", [value, index], group, "outliers", axis=-1)
        for use in group:
            node = use.node
            part = self._store(product_form(use)[places], f"{use.tensor.name}_outliers")
            exact = self._node("MatMul", [large, part], [use], "outliers")
            whole, node.output[0] = node.output[0], fresh(f"{node.output[0]}_rest", self._taken)
            node.input[0] = rest
            total = onnx.helper.make_node(
                "Add", [node.output[0], exact], [whole], name=fresh(f"{node.name}_total", self._taken)
            )
            self._after.setdefault(node.name, []).append(total)

    def finish(self) -> None:
        """Put the new nodes in their places."""
        nodes = []
        for node in self.model.graph.node:
            nodes += [*self._before.get(node.name, []), type(node).FromString(node.SerializeToString())]
            nodes += self._after.get(node.name, [])
        self.model.graph.ClearField("node")
        self.model.graph.node.extend(nodes)
        drop_unused_weights(self.model.graph)

    def _node(
        self, kind: str, inputs: Sequence[str], group: Sequence[NodeWeight], what: str, **attributes: int
    ) -> str:
        """A new node before the first of a group (they stand in the graph's order)."""
        import onnx

        output = fresh(f"{inputs[0]}_{what}", self._taken)
        name = fresh(f"{group[0].node.name}_{what}", self._taken)
        made = onnx.helper.make_node(kind, list(inputs), [output], name=name, **attributes)
        first = min(group, key=lambda use: self._place(use.node.name))
        self._before.setdefault(first.node.name, []).append(made)
        return output

    def _place(self, name: str) -> int:
        return next(place for place, node in enumerate(self.model.graph.node) if node.name == name)

    def _store(self, array: np.ndarray, name: str) -> str:
        import onnx

        chosen = fresh(name, self._taken)
        self.model.graph.initializer.append(onnx.numpy_helper.from_array(array, chosen))
        return chosen


def smoothing_scales(activations: np.ndarray, weights: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """s_j = a_j^alpha / w_j^(1-alpha) over its median, as the nearest power of two; 1 where either is zero.

    Args:
        activations: largest magnitude of each input channel.
        weights: largest magnitude of the weights that read it.
        alpha: 0 leaves the activations as they are, 1 makes all channels alike.
    """
    import numpy as np

    usable = (activations > 0) & (weights > 0)
    logs = np.zeros(activations.shape)
    logs[usable] = alpha * np.log2(activations[usable], dtype=np.float64)
    logs[usable] -= (1 - alpha) * np.log2(weights[usable], dtype=np.float64)
    if usable.any():
        logs[usable] -= np.median(logs[usable])
    powers: np.ndarray = np.exp2(np.clip(np.rint(logs), -16, 16)).astype(np.float32)
    return powers


def outlier_channels(activations: np.ndarray) -> np.ndarray:
    """The places of the largest channels, in order: one in 256, at least 4, less than half of all (of two: none)."""
    import numpy as np

    count = min(max(4, len(activations) // 256), (len(activations) - 1) // 2)
    places: np.ndarray = np.sort(np.argsort(-activations, kind="stable")[:count]).astype(np.int64)
    return places


def product_form(use: NodeWeight) -> np.ndarray:
    """The weight as [input channels, output channels]."""
    whole = use.tensor.rows(0, use.tensor.shape[0])
    return whole.T if use.transposed else whole


def as_stored(use: NodeWeight, weight: np.ndarray) -> np.ndarray:
    """The weight as the node itself reads it; a Transpose before it is skipped."""
    import numpy as np

    turned = any(a.name == "transB" and a.i for a in use.node.attribute)
    return np.ascontiguousarray(weight.T if turned else weight)
