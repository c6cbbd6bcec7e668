"""Compress a model as far as a budget allows: search a plan, build it, verify it, and tell why it was chosen."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, digest_of, file_sha256
from airflow_model_deploy.engine.compression import Budget, Format, Treatment, treatment_of
from airflow_model_deploy.engine.errors import GateError, InputError
from airflow_model_deploy.engine.models import (
    DataSource,
    UserFunction,
    collect_functions,
    load_data,
    locate,
    onnx_precision,
    read_signature,
)
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.candidates import Built, Float, Original, build, write
from airflow_model_deploy.engine.steps.export import MODEL, onnx_of
from airflow_model_deploy.engine.steps.fields import Loss, Metric, Seed, Threads
from airflow_model_deploy.engine.steps.layout import PLAN
from airflow_model_deploy.engine.steps.plan_content import (
    cut_metrics,
    earlier_layers,
    plan_content,
    plan_metrics,
    plan_summary,
)
from airflow_model_deploy.engine.steps.planning import Found, Search, fp32, search_formats
from airflow_model_deploy.engine.steps.quality import named_metric
from airflow_model_deploy.engine.steps.recovery import DistillationSpec
from airflow_model_deploy.engine.steps.spec import spec, spec_json
from airflow_model_deploy.engine.steps.structure_search import cut, not_cut, pruned, structures

if TYPE_CHECKING:
    from collections.abc import Mapping


@spec
class AutoCompressSpec:
    """What compression may cost, what may be done, and what shall come out.

    With `through` "structure" the outcome is the model with its structure cut and recovered, and the plan beside
    it: `quantize` in mode "plan" does the rest. With "quantization" it is the finished ONNX graph.
    """

    budget: Annotated[Budget, Field(description="what has to be kept")] = field(default_factory=Budget)
    objective: Annotated[Literal["balanced", "latency", "size"], Field(description="what is made small")] = (
        "balanced"
    )
    structure: Annotated[
        Literal["auto", "channels", "ffn", "none"],
        Field(
            description="what may be cut; 'auto': feed-forward neurons of transformers, channels of others"
        ),
    ] = "auto"
    ratios: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...],
        Field(description="shares that are tried, by bisection; each costs a recovery"),
    ] = (0.3, 0.5, 0.6, 0.7, 0.8)
    norm: Annotated[Literal["l1", "l2", "taylor"], Field(description="importance of a channel or neuron")] = (
        "l2"
    )
    round_to: Annotated[
        int | None, Field(ge=1, le=4096, description="kept channels are a multiple of it")
    ] = None
    recovery_epochs: Annotated[int, Field(ge=0, description="training after cutting; 0: nothing is cut")] = 10
    formats: Annotated[
        tuple[Format, ...] | None,
        Field(description="formats that layers may have; None: what suits the model"),
    ] = None
    planning_samples: Annotated[
        int, Field(ge=8, description="training samples that losses are measured on")
    ] = 64
    plan: Annotated[
        dict[str, Any] | None,
        Field(description="an edited plan: nothing is searched, this is built and verified"),
    ] = None
    through: Literal["structure", "quantization"] = "quantization"
    fit: UserFunction | None = None
    loss: Loss = None
    distillation: Annotated[
        DistillationSpec,
        Field(description="what a cut model learns from the original in its recovery, in place of `fit`"),
    ] = field(default_factory=DistillationSpec)
    data: Annotated[
        DataSource | None, Field(description="split 'train' recovers, plans and calibrates, 'test' verifies")
    ] = None
    metric: Metric = "accuracy"
    seed: Seed = 0
    threads: Threads = 1


def autocompress(spec: AutoCompressSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Search a plan once for this model, code, data and kind of CPU (or verify the one given), and carry it out."""
    source = inputs["model"]
    original = _original(spec, source, context)
    make = _searched if spec.plan is None else _verified
    parts = {
        "model": source.reference.digest,
        "spec": spec_json(replace(spec, through="structure")),
        "code": _code_digest(spec),
        "samples": original.digest,
    }
    plan = context.pinned("autocompress", parts, lambda: make(spec, source, original, context))
    return _finished(spec, plan, source, original, context)


def _code_digest(spec: AutoCompressSpec) -> str:
    """Of the user's code: with another training function or metric the plan is another."""
    code = locate(collect_functions(spec))
    return digest_of({name: file_sha256(path) for name, path in code.files.items()})


def _original(spec: AutoCompressSpec, source: Input, context: StepContext) -> Original:
    if spec.data is None:
        raise InputError(
            "compression by a budget needs data",
            found="no data",
            wanted="data whose split 'train' recovers, plans and calibrates, and whose split 'test' verifies",
            remedy="Give `data`; without it choose the steps yourself: prune, then quantize in mode 'dynamic'.",
        )
    _, path = onnx_of(source, context)
    if onnx_precision(path) != "fp32":
        raise InputError(
            f"{source.name} can't be compressed any further by a plan",
            found=f"a graph in {onnx_precision(path)}",
            wanted="a float32 model",
            remedy="Give the model as it was before quantization.",
        )
    metric, options = named_metric(spec.metric, context.resolve)
    original = Original(
        path=path,
        metric=metric,
        options=options,
        planning=load_data(spec.data, "train", context.resolve).spread(spec.planning_samples),
        test=load_data(spec.data, "test", context.resolve),
    )
    if spec.budget.max_drop is not None and original.quality is None:
        raise InputError(
            "the budget limits the loss of quality, which can't be measured",
            found="test data without targets",
            wanted=f"targets for the metric {metric.name}",
            remedy="Give targets, a metric that compares with the original (cosine, agreement, retrieval), or no"
            " max_drop.",
        )
    return original


def _searched(
    spec: AutoCompressSpec, source: Input, original: Original, context: StepContext
) -> dict[str, Any]:
    search = Search(spec.budget, spec.objective, spec.formats, context.folder("candidates"), context.pinned)
    graphs, why = structures(spec, source, original, context)
    built: list[Built] = []
    searched: list[Found] = []
    for graph in graphs[:2] or [fp32(original)]:
        searched.append(search_formats(graph, search))
        built += searched[-1].built
    best = min(built, key=search.score)
    if best.broken:
        raise _unreachable(spec, best)
    layers = next(found.layers for found in searched if best in found.built)
    told = [layer.to_json() for layer in layers]
    return plan_content(spec, source.name, original, best, built, told, _reason(spec, built, why))


def _reason(spec: AutoCompressSpec, built: list[Built], why: str) -> str:
    within = [one for one in built if not one.broken]
    what = {"balanced": "best in size and latency together", "latency": "fastest", "size": "smallest"}
    reason = f"{what[spec.objective]} of {len(within)} candidates within the budget, of {len(built)} that were built"
    return f"{reason}; nothing was cut: {why}" if why else reason


def _unreachable(spec: AutoCompressSpec, best: Built) -> GateError:
    found = best.verified
    drop = "unknown" if found.drop is None else f"{found.drop:.4g}"
    return GateError(
        "the budget can't be met",
        found=f"the best that was reached is {best.treatment.name}: {'; '.join(best.broken)}"
        f" ({found.size_bytes} bytes, {found.latency_ms:.4g} ms, drop {drop})",
        wanted=", ".join(f"{k} {v}" for k, v in asdict(spec.budget).items() if v is not None),
        remedy="Widen the budget, allow more (ratios, formats, recovery epochs), or begin with a smaller model.",
    )


def _verified(
    spec: AutoCompressSpec, source: Input, original: Original, context: StepContext
) -> dict[str, Any]:
    """Build and verify an edited plan; what it says to do is done, or refused."""
    given = spec.plan or {}
    treatment = treatment_of(given)
    if treatment.structure is not None:
        why = not_cut(replace(spec, structure="auto", ratios=(0.5,), recovery_epochs=1), source)
        if why:
            raise InputError(
                "the plan's structure can't be cut", found=why, remedy="Set its structure to null."
            )
    graph = _graph(spec, treatment, source, original, context)
    formats: Any = treatment.formats
    built = build(graph, formats, context.folder("given") / MODEL, budget=spec.budget)
    if built.broken:
        raise _unreachable(spec, built)
    return plan_content(
        spec, source.name, original, built, [built], earlier_layers(given), "given, and verified"
    )


def _graph(
    spec: AutoCompressSpec, treatment: Treatment, source: Input, original: Original, context: StepContext
) -> Float:
    if treatment.structure is None:
        return fp32(original)
    return cut(spec, treatment.structure, source, original, context)


def _finished(
    spec: AutoCompressSpec, plan: Mapping[str, Any], source: Input, original: Original, context: StepContext
) -> StepOutput:
    """Make what the plan says; the same plan gives the same bytes."""
    treatment = treatment_of(plan)
    base = source.reference
    if treatment.structure is not None:
        base = pruned(spec, treatment.structure, source, context)
    folder = context.folder("model")
    if spec.through == "structure":
        made, manifest = context.store.fetch(base, context.scratch)
        shutil.copytree(made, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        signature, format_ = manifest.description.signature, manifest.description.format
        metrics, measurements = cut_metrics(manifest.description.metrics), {}
    else:
        formats: Any = treatment.formats
        write(_graph(spec, treatment, source, original, context), formats, folder / MODEL)
        signature, format_ = read_signature(folder / MODEL), "onnx"
        verified = plan["verified"]
        metrics = plan_metrics(plan)
        measurements = {name: verified[name] for name in ("latency_ms", "baseline_latency_ms")}
    parents = {"pruned": base.digest} if treatment.structure is not None else {}
    (folder / PLAN).write_text(json.dumps(plan, indent=1, sort_keys=True), encoding="utf-8")
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name,
            kind="model",
            format=format_,
            signature=signature,
            parents=parents,
            metrics=metrics,
        ),
        main="model",
        measurements=measurements,
        details={"plan": plan_summary(plan)},
    )


STEP = Step(
    name="autocompress",
    summary="Compress a model as far as a budget of quality, size and latency allows.",
    spec=AutoCompressSpec,
    function=autocompress,
    inputs=("model",),
    measured=True,
    libraries=("torch", "torch-pruning", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors"),
)
