"""Gives each node of a graph its own integer format, in one pass over the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.compression.calibration import check_calibration
from airflow_model_deploy.engine.compression.normal_form import normalised
from airflow_model_deploy.engine.compression.outliers import tame_outliers
from airflow_model_deploy.engine.compression.publishing import publish, workshop
from airflow_model_deploy.engine.compression.quantization import check_excluded, dynamic_lstm, static_graph
from airflow_model_deploy.engine.compression.rewriting import Rewriter
from airflow_model_deploy.engine.compression.weight_nodes import (
    check_formats,
    open_for_rewriting,
    weights_of,
)
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import weight_precisions, write_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from airflow_model_deploy.engine.compression.weight_nodes import Format


def quantize_mixed(
    source: str | Path,
    target: str | Path,
    formats: Mapping[str, Format],
    *,
    calibration: Mapping[str, np.ndarray] | None = None,
    batch_size: int = 32,
    block_size: int | None = None,
    per_channel: bool = True,
    activations: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a model whose nodes have the formats named; nodes not named stay fp32. Same bytes for the same input.

    Weights are read, rounded and written a few megabytes at a time: a model larger than memory is no problem,
    but for the formats whose calibration runs it.

    Args:
        source: a float model, in one file or with external data beside it.
        target: the file to write, replaced only once the new one loads. Above 1.5 GB weights lie in
            `<target>.data`.
        formats: node name -> format, as `weighted_nodes` offers them: "int8-dynamic", "int8-smooth" and
            "int8-outlier" (the same with a remedy for large activation channels, see `outliers`), "int8-static",
            "int8-weight", "int4-weight" or "fp32".
        calibration: name -> array as the model takes it, dimension 0 = samples; for "int8-static", "int8-smooth"
            and "int8-outlier".
        batch_size: samples a calibration run.
        block_size: weights that share a scale in "int8-weight" and "int4-weight"; by default 128 and 32.
        per_channel: whether each output channel has a scale of its own ("int8-dynamic" and "int8-static").
        activations: what `largest_activations` has found on this source and these samples, so that it need not be
            found again.

    Raises:
        InputError: no such node or format, a node that can't take it, weights that are not finite.
    """
    source, target = Path(source), Path(target)
    _check_block_size(block_size)
    model = open_for_rewriting(source)
    check_formats(formats, model, weights_of(model, source.parent))
    wanted = set(formats.values())
    if "int8-static" in wanted or (wanted & {"int8-smooth", "int8-outlier"} and activations is None):
        check_calibration(source, calibration or {}, batch_size)
    with workshop(target) as place:
        made = place / target.name
        build_mixed(
            source, made, formats, calibration=calibration or {}, batch_size=batch_size,
            block_size=block_size, per_channel=per_channel, activations=activations,
        )  # fmt: skip
        publish(source, made, target)


def build_mixed(
    source: Path,
    made: Path,
    formats: Mapping[str, Format],
    *,
    calibration: Mapping[str, np.ndarray],
    batch_size: int,
    block_size: int | None = None,
    per_channel: bool = True,
    activations: Mapping[str, np.ndarray] | None = None,
) -> None:
    """What `quantize_mixed` does, without its checks: for a file that its maker loads anyway.

    Args:
        source: the float model.
        made: the file to write, in a folder of its own: what is made on the way lies beside it.
        formats: formats that the nodes can take.
        calibration: samples that have been checked; {} where no format needs any.
        batch_size: samples a calibration run.
        block_size: as for `quantize_mixed`.
        per_channel: likewise.
        activations: likewise.
    """
    floating, place = source, made.parent
    if any(wanted in ("int8-smooth", "int8-outlier") for wanted in formats.values()):
        floating = place / "tamed.onnx"
        formats = tame_outliers(source, floating, formats, calibration, batch_size, activations)
    static = {name for name, wanted in formats.items() if wanted == "int8-static"}
    if static:
        before, floating = floating, place / "static.onnx"
        static_graph(
            before, floating, place, calibration, only=static, batch_size=batch_size, per_channel=per_channel
        )
    rest = {name: wanted for name, wanted in formats.items() if name not in static}
    _rewrite(floating, made, rest, per_channel=per_channel, block_size=block_size)


def quantize_dynamic(
    source: str | Path, target: str | Path, *, per_channel: bool = True, exclude_nodes: Sequence[str] = ()
) -> None:
    """Weights int8, activations quantized while running; best for MatMul, Gemm, Gather and LSTM, needs no data.

    Convolutions stay float: dynamic int8 convolutions are slower than float ones.
    """
    source, target = Path(source), Path(target)
    model = open_for_rewriting(source)
    names = [node.name for node in model.graph.node]
    check_excluded(exclude_nodes, set(names))
    uses = weights_of(model, source.parent)
    chosen: dict[str, Format] = {
        name: "int8-dynamic" for name, use in uses.items() if "int8-dynamic" in use.formats
    }
    recurrent = [n.name for n, kind in weight_precisions(model) if n.op_type == "LSTM" and kind == "fp32"]
    if not chosen and not recurrent:
        present = sorted({node.op_type for node, _ in weight_precisions(model)})
        raise InputError(
            f"dynamic quantization of {source}",
            found=f"no MatMul, Gemm, Gather or LSTM with float32 weights ({', '.join(present) or 'no weights'})",
            wanted="at least one",
            remedy="Use static quantization with calibration data; it quantizes convolutions.",
        )
    for name in exclude_nodes:
        chosen.pop(name, None)
    recurrent = [name for name in recurrent if name not in exclude_nodes]
    if not chosen and not recurrent:
        raise InputError(
            f"quantization of {source}",
            found="no operator was quantized",
            wanted="at least one with int8 weights",
            remedy="Exclude fewer nodes.",
        )
    with workshop(target) as place:
        made = place / target.name
        _rewrite(source, made, chosen, per_channel=per_channel)
        if recurrent:
            dynamic_lstm(made, place / "recurrent.onnx", recurrent, per_channel=per_channel)
            made = place / "recurrent.onnx"
        publish(source, made, target)


def _rewrite(
    source: Path,
    made: Path,
    formats: Mapping[str, Format],
    *,
    per_channel: bool,
    block_size: int | None = None,
) -> None:
    model = open_for_rewriting(source)
    rewriter = Rewriter(model, per_channel=per_channel, block_size=block_size)
    rewriter.rewrite(weights_of(model, source.parent), formats)
    write_onnx(normalised(model), made, folder=source.parent, streams=rewriter.streams)


def _check_block_size(block_size: int | None) -> None:
    if block_size is not None and (block_size < 16 or block_size & (block_size - 1)):
        raise InputError("block_size", found=block_size, wanted="a power of two, at least 16")
