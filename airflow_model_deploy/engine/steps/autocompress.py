"""Compress a model as far as a budget allows: search a plan, build it, verify it, and tell why it was chosen."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, Reference, digest_of, file_sha256
from airflow_model_deploy.engine.compression import (
    Budget,
    Format,
    Structure,
    Treatment,
    feed_forward_blocks,
    treatment_of,
)
from airflow_model_deploy.engine.errors import GateError, InputError
from airflow_model_deploy.engine.models import (
    DataSource,
    UserFunction,
    load_data,
    load_torch_model,
    onnx_precision,
    read_signature,
)
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.candidates import Built, Float, Original, build, write
from airflow_model_deploy.engine.steps.export import MODEL, copy_model, onnx_of
from airflow_model_deploy.engine.steps.fields import Metric, Seed, Threads
from airflow_model_deploy.engine.steps.layout import PLAN
from airflow_model_deploy.engine.steps.planning import Found, Search, fp32, search_formats, search_ratio
from airflow_model_deploy.engine.steps.quality import named_metric
from airflow_model_deploy.engine.steps.spec import spec, spec_json

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

Loss = str | UserFunction | None


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
    data: Annotated[
        DataSource | None, Field(description="split 'train' recovers, plans and calibrates, 'test' verifies")
    ] = None
    metric: Metric = "accuracy"
    seed: Seed = 0
    threads: Threads = 1


def autocompress(spec: AutoCompressSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Search a plan once for this model, data and kind of CPU (or take the one given), build it, verify it."""
    source = inputs["model"]
    original = _original(spec, source, context)
    if spec.plan is not None:
        plan = _given_plan(spec, source, original, context)
    else:
        parts = {"model": source.reference.digest, "spec": spec_json(replace(spec, through="structure"))}
        parts["samples"] = _digest(original)
        plan = context.pinned("autocompress", parts, lambda: _searched(spec, source, original, context))
    return _finished(spec, plan, source, original, context)


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


def _digest(original: Original) -> str:
    import hashlib

    seen = hashlib.sha256()
    for data in (original.planning, original.test):
        targets = data.targets if isinstance(data.targets, dict) else {"": data.targets}
        for name, array in sorted([*data.inputs.items(), *targets.items()]):
            seen.update(name.encode())
            if array is not None:
                seen.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest_of({"model": file_sha256(original.path), "samples": seen.hexdigest()})


def _searched(
    spec: AutoCompressSpec, source: Input, original: Original, context: StepContext
) -> dict[str, Any]:
    search = Search(spec.budget, spec.objective, spec.formats, context.folder("candidates"))
    graphs, why = _structures(spec, source, original, context)
    built: list[Built] = []
    searched: list[tuple[Float, Found]] = []
    for graph in graphs[:2] or [fp32(original)]:
        found = search_formats(graph, search)
        searched.append((graph, found))
        built += found.built
    best = min(built, key=search.score)
    if best.broken:
        raise _unreachable(spec, best)
    layers = next(f.layers for _, f in searched if best in f.built)
    return _plan(spec, source.name, original, best, built, layers, why)


def _unreachable(spec: AutoCompressSpec, best: Built) -> GateError:
    found = best.verified
    return GateError(
        "the budget can't be met",
        found=f"the best that was reached is {best.treatment.name}: {'; '.join(best.broken)}"
        f" ({found.size_bytes} bytes, {found.latency_ms:.4g} ms, drop {found.drop})",
        wanted=", ".join(f"{k} {v}" for k, v in asdict(spec.budget).items() if v is not None),
        remedy="Widen the budget, allow more (ratios, formats, recovery epochs), or begin with a smaller model.",
    )


def _structures(
    spec: AutoCompressSpec, source: Input, original: Original, context: StepContext
) -> tuple[list[Float], str]:
    """The graphs of the largest cuts that keep the quality, most cut first; none, and why, where nothing is cut."""
    why = _not_cut(spec, source)
    if why:
        return [], why
    method = _method(spec, source, context)

    def attempt(ratio: float) -> tuple[Float, float | None] | None:
        structure = Structure(method, ratio, spec.norm, spec.round_to, spec.recovery_epochs)
        try:
            graph = _cut(spec, structure, source, original, context)
        except InputError as error:
            logger.info("nothing is cut at ratio %s: %s", ratio, error)
            return None
        return graph, original.drop(original.quality_of(graph.test_answers))

    found = search_ratio(sorted(spec.ratios), attempt, spec.budget)
    return found, "" if found else "no ratio that was tried kept the quality"


def _not_cut(spec: AutoCompressSpec, source: Input) -> str:
    if source.format != "torch":
        return "the model is a graph: there is no training code to recover it with"
    if spec.structure == "none" or not spec.ratios:
        return "the structure is to stay"
    if spec.fit is None and spec.loss is None:
        return "without a training function or a loss nothing that is cut can recover"
    return "" if spec.recovery_epochs else "without recovery epochs nothing that is cut can recover"


def _method(spec: AutoCompressSpec, source: Input, context: StepContext) -> Literal["channels", "ffn"]:
    if spec.structure in ("channels", "ffn"):
        return spec.structure
    try:
        feed_forward_blocks(load_torch_model(source.folder, context.resolve))
    except InputError:  # not a transformer
        return "channels"
    return "ffn"


def _cut(
    spec: AutoCompressSpec, structure: Structure, source: Input, original: Original, context: StepContext
) -> Float:
    reference = _pruned(spec, structure, source, context)
    exported = context.run("export", {}, {"model": reference}).artifact
    if exported is None:
        raise TypeError("the export step published no artifact")
    folder, _ = context.store.fetch(exported, context.scratch)
    return Float(folder / MODEL, Treatment(structure), original)


def _pruned(spec: AutoCompressSpec, structure: Structure, source: Input, context: StepContext) -> Reference:
    """The pruned and recovered model, made by the step `prune`, which keeps what it has made."""
    asked = {**asdict(structure), "seed": spec.seed, "threads": spec.threads, "metric": spec.metric}
    asked |= {"fit": spec.fit, "loss": spec.loss, "data": spec.data}
    plain = {name: _json(value) for name, value in asked.items()}
    artifact = context.run("prune", plain, {"model": source.reference}).artifact
    if artifact is None:
        raise TypeError("the prune step published no artifact")
    return artifact


def _json(value: Any) -> Any:
    return spec_json(value) if hasattr(value, "__dataclass_fields__") else value


def _given_plan(
    spec: AutoCompressSpec, source: Input, original: Original, context: StepContext
) -> dict[str, Any]:
    """Build and verify an edited plan; what it says to do is done, or refused."""
    treatment = treatment_of(spec.plan or {})
    if treatment.structure is not None and (
        why := _not_cut(replace(spec, structure="auto", recovery_epochs=1), source)
    ):
        raise InputError("the plan's structure can't be cut", found=why, remedy="Set its structure to null.")
    graph = (
        _cut(spec, treatment.structure, source, original, context) if treatment.structure else fp32(original)
    )
    formats: Any = treatment.formats
    target = context.folder("given") / MODEL
    built = build(graph, formats, target, budget=spec.budget)
    if built.broken:
        raise _unreachable(spec, built)
    told = (spec.plan or {}).get("sensitivity") or []
    return _plan(
        spec, source.name, original, built, [built], [], "", sensitivity=told, reason="given, and verified"
    )


def _plan(
    spec: AutoCompressSpec,
    name: str,
    original: Original,
    best: Built,
    built: list[Built],
    layers: Any,
    why: str,
    *,
    sensitivity: list[dict[str, Any]] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    within = [one for one in built if not one.broken]
    told = [{**one.told(), "chosen": one is best} for one in built]
    what = {"balanced": "small and fast together", "latency": "fast", "size": "small"}[spec.objective]
    return {
        "schema_version": 1,
        "model": name,
        "metric": original.metric.name,
        "higher_is_better": original.metric.higher_is_better,
        "loss_name": original.loss_name,
        "budget": asdict(spec.budget),
        "objective": spec.objective,
        "planning_samples": spec.planning_samples,
        **best.treatment.to_json(),
        "predicted": best.predicted,
        "verified": asdict(best.verified),
        "reason": reason
        or f"most {what} of {len(within)} candidates within the budget, of {len(built)} that were built"
        + (f"; nothing was cut: {why}" if why else ""),
        "candidates": told,
        "sensitivity": sensitivity
        if sensitivity is not None
        else [
            {**layer.to_json(), "chosen": best.treatment.formats.get(layer.layer, "fp32")} for layer in layers
        ],
    }


def _finished(
    spec: AutoCompressSpec, plan: Mapping[str, Any], source: Input, original: Original, context: StepContext
) -> StepOutput:
    """Make what the plan says; the same plan gives the same bytes."""
    treatment = treatment_of(plan)
    base = source.reference
    if treatment.structure is not None:
        base = _pruned(spec, treatment.structure, source, context)
    folder = context.folder("model")
    parents: dict[str, str] = {}
    if spec.through == "structure":
        made, manifest = context.store.fetch(base, context.scratch)
        shutil.copytree(made, folder, dirs_exist_ok=True)
        signature, format_ = manifest.description.signature, manifest.description.format
    else:
        graph = (
            _cut(spec, treatment.structure, source, original, context)
            if treatment.structure
            else fp32(original)
        )
        formats: Any = treatment.formats
        if formats:
            write(graph, formats, folder / MODEL)
        else:
            copy_model(graph.path, folder)
        signature, format_ = read_signature(folder / MODEL), "onnx"
    if treatment.structure is not None:
        parents = {"pruned": base.digest}
    (folder / PLAN).write_text(json.dumps(plan, indent=1, sort_keys=True), encoding="utf-8")
    verified = plan["verified"]
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name,
            kind="model",
            format=format_,
            signature=signature,
            parents=parents,
            metrics=_metrics(plan, verified),
        ),
        main="model",
        measurements={
            "latency_ms": verified["latency_ms"],
            "baseline_latency_ms": verified["baseline_latency_ms"],
        },
        details={"plan": _summary(plan)},
    )


def _metrics(plan: Mapping[str, Any], verified: Mapping[str, Any]) -> dict[str, Any]:
    told = {"metric": plan["metric"], "higher_is_better": plan["higher_is_better"]}
    if verified["quality"] is not None:
        told |= {"quality": verified["quality"], "baseline_quality": verified["baseline_quality"]}
        told["drop"] = verified["drop"]
    return {**told, "model_bytes": verified["size_bytes"], "baseline_bytes": verified["baseline_size_bytes"]}


def _summary(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan without what grows with the model's layers: it travels in XCom."""
    counts: dict[str, int] = {}
    for wanted in plan["formats"].values():
        counts[wanted] = counts.get(wanted, 0) + 1
    return {k: v for k, v in plan.items() if k not in ("sensitivity", "formats")} | {"layers": counts}


STEP = Step(
    name="autocompress",
    summary="Compress a model as far as a budget of quality, size and latency allows.",
    spec=AutoCompressSpec,
    function=autocompress,
    inputs=("model",),
    measured=True,
    libraries=("torch", "torch-pruning", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors"),
)
