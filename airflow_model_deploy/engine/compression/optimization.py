"""Chooses by measurement how a graph is served fastest, and repeats a choice without measuring."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import file_sha256
from airflow_model_deploy.engine.compression.choice import Candidate, Choice, Measurement
from airflow_model_deploy.engine.compression.normal_form import normalised
from airflow_model_deploy.engine.compression.trials import batches, errors, least, load_seconds, measure
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    OptimizationLevel,
    SessionSettings,
    copy_onnx,
    cpu_fingerprint,
    create_session,
    file_size,
    fits_one_file,
    load_onnx,
    onnx_sha256,
    open_onnx,
    write_onnx,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

_LEVELS: tuple[OptimizationLevel, ...] = ("basic", "extended", "all")  # the most portable first
UNCHANGED = "unchanged"
UNOPTIMIZED = "unoptimized"  # measured for the report only, never chosen
_SKIP_FUSION = "SkipLayerNormFusion"  # slows transformers on the CPU by 10 to 25 %


def candidates(source: str | Path) -> tuple[Candidate, ...]:
    """The ways of serving this graph that are worth a measurement; the unchanged one first.

    A file optimized offline is served with graph optimization off: at any other level ONNX Runtime would
    optimize it again at load, and fuse what was left unfused on purpose. A model whose weights lie beside it, since
    they are too large for one file, stays as it is: every candidate would be gigabytes to write.
    """
    found = [Candidate(UNCHANGED, None, ())]
    variants: list[tuple[str, tuple[str, ...]]] = [("", ())]
    if _has_skip_layer_norm(Path(source)):
        variants.append(("-no-skip-fusion", (_SKIP_FUSION,)))
        found.append(Candidate(f"{UNCHANGED}-no-skip-fusion", None, (_SKIP_FUSION,)))
    if not fits_one_file(file_size(source)):
        return tuple(found)
    for suffix, disabled in variants:
        found += [
            Candidate(f"offline-{level}{suffix}", level, disabled) for level in ("basic", "extended", "all")
        ]
    return tuple(found)


def _has_skip_layer_norm(source: Path) -> bool:
    nodes = open_onnx(source).graph.node
    sums = {name for node in nodes if node.op_type == "Add" for name in node.output}
    return any(node.op_type == "LayerNormalization" and node.input[0] in sums for node in nodes)


def choose(
    source: str | Path,
    inputs: Mapping[str, np.ndarray],
    *,
    threads: int = 1,
    batch_sizes: Sequence[int] = (1, 32),
    noise: float = 0.03,
    rounds: int = 30,
    max_seconds: float = 30.0,
    tolerance: float = 1e-3,
) -> Choice:
    """Measure every candidate as it would be served, side by side, and choose one.

    The baseline is the source at ONNX Runtime's defaults (optimized at load), because that is what serving
    without this step would cost. `gain` is how much faster than that the choice answers: geometric mean over
    the batch sizes of baseline time / its time, minus 1; times are the minimum of interleaved CPU times.
    `gain_unoptimized` is the same against the source as it stands, with graph optimization off. In order:

    1. A candidate whose outputs differ by more than `tolerance` of the largest output is out.
    2. The fastest one wins if its gain is at least `noise` in each of two passes, with sessions of their own;
       a more portable one within `noise` of it is preferred.
    3. Else an offline file that is no slower (within `noise`) and starts at least 10 % sooner wins; among
       those the most portable one, as long as no other starts 10 % sooner still.
    4. Else the unchanged file with default settings wins.

    Args:
        source: an ONNX file.
        inputs: samples that requests resemble, dimension 0 = samples; repeated to fill a batch.
        threads: intra-operator threads of the server.
        batch_sizes: batches that requests come in.
        noise: smallest difference that counts.
        rounds: interleaved samples a candidate and batch size.
        max_seconds: wall time after which a batch size's measurement stops early.
        tolerance: largest difference of outputs, relative to the largest output.
    """
    source = Path(source)
    _check(batch_sizes, threads, noise)
    tried = [*candidates(source), Candidate(UNOPTIMIZED, None, (), unoptimized=True)]
    with tempfile.TemporaryDirectory(prefix="optimize-") as name:
        files = {c.name: source for c in tried if c.level is None}
        files |= {c.name: _build(c, source, Path(name) / f"{c.name}.onnx") for c in tried if c.level}
        tried = _without_doubles(tried, files)
        files = {c.name: files[c.name] for c in tried}
        settings = {c.name: c.settings(threads) for c in tried}
        loads = load_seconds(files, settings)
        sizes_asked = batches(source, batch_sizes)
        passes = [measure(files, settings, inputs, sizes_asked, rounds, max_seconds / 2) for _ in range(2)]
        differences = errors(files, settings, inputs, UNOPTIMIZED)
        sizes = {c: file_size(file) for c, file in files.items()}
    tables = [
        {
            c.name: Measurement(c.name, one[c.name], loads[c.name], sizes[c.name], differences[c.name])
            for c in tried
        }
        for one in (*passes, least(passes))
    ]
    by_name = tables[-1]
    chosen, reason = _decide(tried, tables, noise, tolerance)
    return Choice(
        candidate=chosen,
        settings=settings[chosen.name],
        source_sha256=onnx_sha256(source),
        gain=by_name[chosen.name].speedup(by_name[UNCHANGED]) - 1,
        gain_unoptimized=by_name[chosen.name].speedup(by_name[UNOPTIMIZED]) - 1,
        reason=reason,
        measurements=tuple(by_name.values()),
        cpu=cpu_fingerprint(),
    )


def apply(choice: Choice, source: str | Path, target: str | Path) -> None:
    """Write the chosen file without measuring: the same choice and source give the same bytes.

    Raises:
        InputError: the choice was made for another source; or its file is bound to a CPU of another kind.
    """
    found = onnx_sha256(source)
    if found != choice.source_sha256:
        raise InputError(
            f"optimization choice for {source}",
            found=f"a choice made for sha256 {choice.source_sha256[:12]}",
            wanted=f"one for sha256 {found[:12]}",
            remedy="Measure again.",
        )
    if choice.candidate.hardware_bound and not cpu_fingerprint().same_kernels(choice.cpu):
        raise InputError(
            f"optimization choice {choice.candidate.name}",
            found=f"a choice for {choice.cpu.model} with {', '.join(choice.cpu.flags)}",
            wanted=f"one for this CPU ({', '.join(cpu_fingerprint().flags)})",
            remedy="Measure again on this kind of CPU, or run the step on the other one.",
        )
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _build(choice.candidate, Path(source), temporary)
        create_session(temporary, choice.settings)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _check(batch_sizes: Sequence[int], threads: int, noise: float) -> None:
    if not batch_sizes or min(batch_sizes) < 1:
        raise InputError("batch_sizes", found=list(batch_sizes), wanted="at least one, each at least 1")
    if threads < 1:
        raise InputError("threads", found=threads, wanted="at least 1")
    if not 0 <= noise < 1:
        raise InputError("noise", found=noise, wanted="0 <= noise < 1")


def _build(candidate: Candidate, source: Path, target: Path) -> Path:
    if candidate.level is None:
        return copy_onnx(source, target)
    settings = SessionSettings(
        graph_optimization_level=candidate.level, disabled_optimizers=candidate.disabled_optimizers
    )
    written = target.with_name(f"{target.name}.written")
    try:
        create_session(source, settings, optimized_file=written)
        # Weights that ONNX Runtime left as they were still lie beside the source, if they did.
        write_onnx(normalised(load_onnx(written)), target, folder=source.parent)
    finally:
        written.unlink(missing_ok=True)
    return target


def _without_doubles(tried: list[Candidate], files: Mapping[str, Path]) -> list[Candidate]:
    """Drop a level that changes nothing more than the one before it: the same file, needlessly bound."""
    seen: set[str] = set()
    kept = []
    for candidate in tried:
        digest = file_sha256(files[candidate.name]) if candidate.level else candidate.name
        if digest not in seen:
            kept.append(candidate)
        seen.add(digest)
    return kept


def _decide(
    tried: Sequence[Candidate], tables: Sequence[Mapping[str, Measurement]], noise: float, tolerance: float
) -> tuple[Candidate, str]:
    """The rules of `choose`; `tables` holds each pass and, last, the least of them."""
    table = tables[-1]
    baseline = table[UNCHANGED]
    equal = [c for c in tried if c.name not in (UNCHANGED, UNOPTIMIZED) and table[c.name].error <= tolerance]
    gains = {c.name: table[c.name].speedup(baseline) - 1 for c in equal}
    faster = [c for c in equal if min(t[c.name].speedup(t[UNCHANGED]) for t in tables) >= 1 + noise]
    if faster:
        best = max(1 + gains[c.name] for c in faster)
        chosen = next(c for c in faster if 1 + gains[c.name] >= best * (1 - noise))
        return chosen, f"answers {gains[chosen.name]:.1%} faster than the source at default settings"
    soon = 0.9 * baseline.load_seconds
    sooner = [c for c in equal if c.level and gains[c.name] >= -noise and table[c.name].load_seconds <= soon]
    if sooner:
        least = min(table[c.name].load_seconds for c in sooner)
        chosen = next(c for c in sooner if 0.9 * table[c.name].load_seconds <= least)
        share = 1 - table[chosen.name].load_seconds / baseline.load_seconds
        return chosen, f"no slower than the source at default settings, and starts {share:.0%} sooner"
    return tried[0], f"nothing was faster by {noise:.0%}, or no slower and sooner to start"
