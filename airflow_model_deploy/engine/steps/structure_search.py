"""Cuts a model's structure as far as its recovery keeps a budget's quality."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from airflow_model_deploy.engine.compression import Structure, Treatment, feed_forward_blocks
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import load_torch_model
from airflow_model_deploy.engine.steps.candidates import Float, Original
from airflow_model_deploy.engine.steps.export import MODEL
from airflow_model_deploy.engine.steps.planning import search_ratio
from airflow_model_deploy.engine.steps.prune import PruneSpec
from airflow_model_deploy.engine.steps.recovery import names_recovery
from airflow_model_deploy.engine.steps.spec import spec_json

if TYPE_CHECKING:
    from airflow_model_deploy.engine.artifacts import Reference
    from airflow_model_deploy.engine.steps.autocompress import AutoCompressSpec
    from airflow_model_deploy.engine.steps.base import Input, StepContext

logger = logging.getLogger(__name__)


def structures(
    spec: AutoCompressSpec, source: Input, original: Original, context: StepContext
) -> tuple[list[Float], str]:
    """Return the graphs of the largest cuts that keep the quality, most cut first; or none, and why."""
    why = not_cut(spec, source)
    if why:
        return [], why
    method = _method(spec, source, context)

    def attempt(ratio: float) -> tuple[Float, float | None] | None:
        structure = Structure(method, ratio, spec.norm, spec.round_to, spec.recovery_epochs)
        try:
            graph = cut(spec, structure, source, original, context)
        except InputError as error:
            logger.info("nothing is cut at ratio %s: %s", ratio, error)
            return None
        return graph, original.drop(original.quality_of(graph.test_answers))

    found = search_ratio(sorted(spec.ratios), attempt, spec.budget)
    return found, "" if found else "no ratio that was tried kept the quality"


def not_cut(spec: AutoCompressSpec, source: Input) -> str:
    """Return why nothing is cut; "" where something is."""
    if source.format != "torch":
        return "the model is a graph: there is no training code to recover it with"
    if spec.structure == "none" or not spec.ratios:
        return "the structure is to stay"
    if not names_recovery(spec.fit, spec.loss, spec.distillation):
        return "without a training function, a loss or a distillation nothing that is cut can recover"
    return "" if spec.recovery_epochs else "without recovery epochs nothing that is cut can recover"


def _method(spec: AutoCompressSpec, source: Input, context: StepContext) -> Literal["channels", "ffn"]:
    if spec.structure in ("channels", "ffn"):
        return spec.structure
    try:
        feed_forward_blocks(load_torch_model(source.folder, context.resolve))
    except InputError:  # not a transformer
        return "channels"
    return "ffn"


def cut(
    spec: AutoCompressSpec, structure: Structure, source: Input, original: Original, context: StepContext
) -> Float:
    """Return the graph of the model with less structure."""
    reference = pruned(spec, structure, source, context)
    exported = context.run("export", {}, {"model": reference}).artifact
    if exported is None:
        raise TypeError("the export step published no artifact")
    folder, _ = context.store.fetch(exported, context.scratch)
    return Float(folder / MODEL, Treatment(structure), original)


def pruned(spec: AutoCompressSpec, structure: Structure, source: Input, context: StepContext) -> Reference:
    """Return the pruned and recovered model, made by the step `prune`, which keeps what it has made."""
    asked = PruneSpec(
        method=structure.method,
        ratio=structure.ratio,
        norm=structure.norm,
        round_to=structure.round_to,
        recovery_epochs=structure.recovery_epochs,
        fit=spec.fit,
        loss=spec.loss,
        distillation=spec.distillation,
        data=spec.data,
        metric=spec.metric,
        seed=spec.seed,
        threads=spec.threads,
    )
    artifact = context.run("prune", spec_json(asked), {"model": source.reference}).artifact
    if artifact is None:
        raise TypeError("the prune step published no artifact")
    return artifact
