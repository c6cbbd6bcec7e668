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
    load_data,
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
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import data_for, predict

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
    data: DataSource


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
    golden_data, sample = _questions(spec, load_data(spec.data, "test", context.resolve))
    golden = _golden(spec, source, baseline, settings, golden_data, sample, context)
    _require_promise(golden)
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
                "model_bytes": path.stat().st_size,
                "tolerance": {
                    kind: {name: tolerance.absolute for name, tolerance in outputs.items()}
                    for kind, outputs in golden.tolerance.items()
                },
            },
        ),
        main="model",
    )


def read_settings(folder: Path) -> SessionSettings:
    """Return the session settings that an optimized model carries, or a server's defaults."""
    path = folder / SESSION
    return SessionSettings.from_json(json.loads(path.read_bytes())) if path.is_file() else SessionSettings()


def _questions(spec: BuildSpec, data: Dataset) -> tuple[Dataset, Dataset]:
    """Split test data into golden requests and a sample apart from them."""
    import numpy as np

    total = len(data)
    if total < 2 * spec.golden_requests:
        raise InputError(
            "the test split is too small for golden requests and a sample apart from them",
            found=f"{total} samples",
            wanted=f"at least {2 * spec.golden_requests}",
            remedy="Give more test data, or ask for fewer golden requests.",
        )
    chosen = np.unique(np.linspace(0, total - 1, spec.golden_requests).round().astype(int))
    rest = np.setdiff1d(np.arange(total), chosen)
    return _take(data, chosen), _take(data, rest).spread(spec.sample)


def _take(data: Dataset, places: np.ndarray) -> Dataset:
    return Dataset(
        inputs={name: array[places] for name, array in data.inputs.items()},
        targets=None if data.targets is None else data.targets[places],
    )


def _golden(
    spec: BuildSpec,
    source: Input,
    baseline: Input,
    settings: SessionSettings,
    questions: Dataset,
    sample: Dataset,
    context: StepContext,
) -> GoldenSet:
    path = source.folder / MODEL
    signature = read_signature(path)
    session = create_session(path, settings)
    feed, sample_feed = data_for(questions, signature), data_for(sample, signature)
    # One request at a time is what the server will see first; larger batches may round otherwise.
    built = run(session, feed, batch_size=1)
    variations = [run(session, feed), run(session, feed, batch_size=3)]
    original = _original(baseline, {**feed}, context)
    promise = derive_tolerance(
        _original(baseline, sample_feed, context),
        run(session, sample_feed, batch_size=64),
        margin=spec.margin,
        source=f"{spec.margin} x the largest difference on {len(sample)} test samples",
    )
    return make_golden(
        feed,
        original,
        built,
        original_tolerance=promise,
        built_tolerance=tight_tolerance(built, variations),
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
            remedy="Compress less, let it recover longer, or give a larger `sample`.",
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
    measured=True,
    libraries=("onnx", "onnxruntime", "numpy", "torch"),
)
