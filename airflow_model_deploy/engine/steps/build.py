"""Build the servable: the model with its session settings and the golden requests that guard it from here on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description
from airflow_model_deploy.engine.errors import GateError, InputError
from airflow_model_deploy.engine.models import (
    Dataset,
    DataSource,
    SessionSettings,
    create_session,
    file_size,
    load_torch_model,
    onnx_precision,
    read_signature,
    run,
)
from airflow_model_deploy.engine.packaging import write_servable
from airflow_model_deploy.engine.probing import (
    GoldenSet,
    compare,
    derive_tolerance,
    make_golden,
    tight_tolerance,
)
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.export import MODEL
from airflow_model_deploy.engine.steps.samples import TEST, Samples, samples_for
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import predict

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

SESSION = "session.json"


@spec
class BuildSpec:
    """How many golden requests, and how far compression may have moved the answers."""

    golden_requests: Annotated[int, Field(ge=16, le=1024, description="taken evenly from the test split")] = (
        16
    )
    sample: Annotated[
        int, Field(ge=16, description="other test samples, from which the tolerance is derived")
    ] = 256
    margin: Annotated[
        float, Field(ge=1, le=10, description="tolerance over the largest difference seen on the sample")
    ] = 1.25
    data: Annotated[
        DataSource | None,
        Field(description="split 'test' gives the questions; None: random inputs by the signature"),
    ] = None


def build(spec: BuildSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Ask the original and the built model the same questions; write the servable with both answers."""
    source, baseline = inputs["model"], inputs["baseline"]
    path = source.folder / MODEL
    if source.format != "onnx":
        raise InputError(
            "a servable is built from ONNX",
            found=f"an artifact in format {source.format!r}",
            wanted="'onnx'",
            remedy="Run quantize before build; its mode 'none' only exports.",
        )
    signature = read_signature(path)
    settings = read_settings(source.folder)
    rows = signature.fixed_batch or 1
    samples = samples_for(path, spec.data, context.resolve, random=spec.golden_requests * rows + spec.sample)
    questions, sample = _questions(spec, samples, rows)
    promise = f"{spec.margin} x the largest difference on {_count(sample)} {samples.source}"
    golden = _golden(spec, source, baseline, settings, questions, sample, context, promise)
    _require_promise(golden)
    # What was drawn at random says nothing about requests to come.
    ranges = _ranges(samples.feed) if samples.source == TEST else {}
    folder = context.folder("servable")
    digest = write_servable(
        folder,
        model=path,
        name=source.name,
        version=source.reference.short,
        signature=signature,
        session=settings.to_json(),
        precision=onnx_precision(path),
        golden=golden,
        ranges=ranges,
    )
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name,
            kind="servable",
            format="servable",
            signature=signature,
            metrics={
                **_inherited(source),
                "servable_digest": digest,
                "golden_requests": spec.golden_requests,
                "golden_source": samples.source,
                "model_bytes": file_size(path),
                "tolerance": {
                    kind: {name: tolerance.absolute for name, tolerance in outputs.items()}
                    for kind, outputs in golden.tolerance.items()
                },
            },
        ),
        main="model",
        details={"golden_source": samples.source},
    )


def read_settings(folder: Path) -> SessionSettings:
    """Return the session settings that an optimized model carries, or a server's defaults."""
    path = folder / SESSION
    return SessionSettings.from_json(json.loads(path.read_bytes())) if path.is_file() else SessionSettings()


def _questions(
    spec: BuildSpec, samples: Samples, rows: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Split samples into golden requests of `rows` each and a sample apart from them."""
    import numpy as np

    data, wanted = Dataset(samples.feed, None), spec.golden_requests * rows
    total = len(data)
    if total < 2 * wanted:
        raise InputError(
            "the test split is too small for golden requests and a sample apart from them",
            found=f"{total} samples",
            wanted=f"at least {2 * wanted}" + (f", since the model takes {rows} at once" if rows > 1 else ""),
            remedy="Give more test data, or ask for fewer golden requests.",
        )
    chosen = np.unique(np.linspace(0, total - 1, wanted).round().astype(int))
    rest = np.setdiff1d(np.arange(total), chosen)
    return data.take(chosen).inputs, data.take(rest).spread(spec.sample).inputs


def _ranges(feed: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Return the least and largest finite value of each float input that has one."""
    import numpy as np

    found = {}
    for name, array in feed.items():
        finite = np.isfinite(array) if array.dtype.kind == "f" else np.zeros(0, bool)
        if finite.any():
            low = array.min(where=finite, initial=np.inf)
            found[name] = (float(low), float(array.max(where=finite, initial=-np.inf)))
    return found


def _count(feed: dict[str, np.ndarray]) -> int:
    return len(next(iter(feed.values())))


def _golden(
    spec: BuildSpec,
    source: Input,
    baseline: Input,
    settings: SessionSettings,
    questions: dict[str, np.ndarray],
    sample: dict[str, np.ndarray],
    context: StepContext,
    promise: str,
) -> GoldenSet:
    path = source.folder / MODEL
    session = create_session(path, settings)
    # One request at a time is what the server will see first; larger batches may round otherwise.
    built = run(session, questions, batch_size=1)
    variations = [run(session, questions), run(session, questions, batch_size=3)]
    return make_golden(
        questions,
        _original(baseline, questions, context),
        built,
        original_tolerance=derive_tolerance(
            _original(baseline, sample, context),
            run(session, sample, batch_size=64),
            margin=spec.margin,
            source=promise,
        ),
        built_tolerance=tight_tolerance(built, variations),
        rows_per_request=read_signature(path).fixed_batch or 1,
    )


def _original(baseline: Input, feed: dict[str, np.ndarray], context: StepContext) -> dict[str, np.ndarray]:
    """Return the original fp32 model's own answers: torch's where it is one, else the ONNX file's."""
    if baseline.format == "torch":
        return predict(load_torch_model(baseline.folder, context.resolve), feed)
    return run(create_session(baseline.folder / MODEL), feed, batch_size=64)


def _require_promise(golden: GoldenSet) -> None:
    found = compare(golden, {request.id: request.built for request in golden.requests}, against="original")
    if not found.passed:
        raise GateError(
            "the built model moved golden answers further than its own test sample promised",
            found=found.summary,
            wanted="every golden request within the tolerance",
            remedy="Compress less, let it recover longer, or give a larger `sample` or `margin`.",
        )


def _inherited(source: Input) -> dict[str, object]:
    metrics = source.manifest.description.metrics
    return {
        name: metrics[name]
        for name in ("metric", "quality", "higher_is_better", "samples")
        if name in metrics
    }


STEP = Step(
    name="build",
    summary="Make the servable: model, session settings, golden requests with both answers.",
    spec=BuildSpec,
    function=build,
    inputs=("model", "baseline"),
    version=2,
    measured=True,
    libraries=("onnx", "onnxruntime", "numpy", "safetensors", "torch"),
)
