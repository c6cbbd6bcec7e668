"""Take in a model that exists: weights for a factory, a transformers folder, an ONNX file, or an artifact."""

from __future__ import annotations

import logging
import re
from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, Reference, Signature, file_sha256
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.models import (
    TRANSFORMERS_FACTORY,
    DataSource,
    Task,
    UserFunction,
    build_model,
    check_onnx,
    fill_model,
    load_data,
    load_weights,
    onnx_precision,
    onnx_sha256,
    open_onnx,
    read_factory,
    read_signature,
    read_transformers_folder,
    write_onnx,
)
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.export import MODEL
from airflow_model_deploy.engine.steps.fields import Dynamic, Metric, Name
from airflow_model_deploy.engine.steps.ingest_transformers import take_transformers
from airflow_model_deploy.engine.steps.quality import onnx_quality, torch_quality
from airflow_model_deploy.engine.steps.sources import local_source
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import write_torch

logger = logging.getLogger(__name__)

TOKENIZER = (
    "tokenizer"  # the folder of a transformers model's tokenizer files: for clients, no server reads them
)
_ARTIFACT = re.compile(r"/artifacts/sha256-([0-9a-f]{64})/?$")


@spec
class IngestSpec:
    """Where the model is, and what is needed to load and judge it."""

    name: Name
    source: Annotated[
        str,
        Field(
            min_length=1,
            description="a .safetensors, .pt or .pth file with a state dict, an .onnx file, the folder of a"
            " transformers model (a path or a URL that fsspec reads), or the URI of an artifact in the store",
        ),
    ]
    sha256: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9a-f]{64}$",
            description="what the file must hash to; of a folder, or an ONNX file with weights beside it: sha256sum's"
            " listing of the files that count",
        ),
    ] = None
    task: Annotated[
        Task,
        Field(
            description="what a transformers folder is taken for; 'auto': an embedder where sentence-transformers"
            " wrote it, else the class that its config names"
        ),
    ] = "auto"
    factory: Annotated[
        UserFunction | None, Field(description="returns the torch.nn.Module for the weights")
    ] = None
    data: Annotated[
        DataSource | None,
        Field(description="example inputs and the test split; weights with a factory need it"),
    ] = None
    metric: Metric = "accuracy"
    dynamic: Dynamic = field(default_factory=dict)


def ingest(spec: IngestSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Check the model, load it once, and make it an artifact with a signature."""
    del inputs
    match = _ARTIFACT.search(spec.source)
    if match:
        reference = Reference(uri=spec.source.rstrip("/"), digest=f"sha256:{match.group(1)}")
        _check_artifact(spec, reference, context)
        return StepOutput(passed_on=reference, details={"source": "an artifact of the store"})
    path = local_source(spec.source, context.store, context.folder("source"))
    found = _sha256(path)
    if spec.sha256 and found != spec.sha256:
        raise IntegrityError(
            f"the model {'folder' if path.is_dir() else 'file'} {spec.source} is not the one asked for",
            found=f"sha256 {found}",
            wanted=f"sha256 {spec.sha256}",
            remedy="Get it again, or correct the sha256.",
        )
    folder = context.folder("model")
    if path.suffix == ".onnx":
        signature, metrics, form = *_onnx(spec, path, folder, context), "onnx"
    elif path.is_dir():
        signature, metrics, form = *take_transformers(spec, path, folder, context), "torch"
    else:
        signature, metrics, form = *_torch(spec, path, folder, context), "torch"
    return StepOutput(
        folder=folder,
        description=Description(
            name=spec.name,
            kind="model",
            format=form,
            signature=signature,
            metrics={**metrics, "source_sha256": found},
        ),
        details={"source": Path(spec.source).name},
    )


def _check_artifact(spec: IngestSpec, reference: Reference, context: StepContext) -> None:
    """Verify a model of the store; whoever names it must not choose what is imported, so its factory is compared."""
    folder, manifest = context.store.fetch(reference, context.scratch)
    description = manifest.description
    if description.kind != "model":
        raise InputError(
            f"{reference.uri} is no model",
            found=f"a {description.kind}",
            wanted="the artifact of a train, ingest, prune, quantize or optimize step",
            remedy="Give the URI of a model.",
        )
    if description.name != spec.name:
        raise InputError(
            f"{reference.uri} is another model",
            found=description.name,
            wanted=spec.name,
            remedy="Choose the model that it is, or give another artifact.",
        )
    listed = spec.factory.path if spec.factory else None
    if description.format == "torch" and read_factory(folder).path not in (listed, TRANSFORMERS_FACTORY):
        raise InputError(
            f"the code of the model {reference.uri} is not what the Dag's author has listed",
            found=read_factory(folder).path,
            wanted=listed or "a factory in the Dag",
            remedy="Choose the listed model that it belongs to, or list its factory in the Dag.",
        )


def _mark(spec: IngestSpec) -> str | None:
    """Tell one state of the source from another: the same path may hold another model tomorrow."""
    if _ARTIFACT.search(spec.source):
        return spec.source
    path = Path(spec.source)
    # Its weights may lie in files beside it: which, nobody knows without opening it.
    if path.suffix == ".onnx":
        return spec.sha256
    # What a URL holds isn't known without fetching it.
    return spec.sha256 or (_sha256(path) if path.exists() else None)


def _sha256(path: Path) -> str:
    if path.is_dir():
        return read_transformers_folder(path).sha256
    return onnx_sha256(path) if path.suffix == ".onnx" else file_sha256(path)


def _onnx(
    spec: IngestSpec, path: Path, folder: Path, context: StepContext
) -> tuple[Signature, dict[str, object]]:
    check_onnx(path)
    # Written anew, so that weights kept in files beside the graph come along: inside, or in one file beside it.
    write_onnx(open_onnx(path), folder / MODEL, folder=path.parent)
    quality = onnx_quality(path, spec.data, spec.metric, context.resolve, original="itself")
    return read_signature(path), {**quality, "precision": onnx_precision(path)}


def _torch(
    spec: IngestSpec, path: Path, folder: Path, context: StepContext
) -> tuple[Signature, dict[str, object]]:
    if spec.factory is None or spec.data is None:
        raise InputError(
            f"the weights in {spec.source} can't be loaded by themselves",
            found=f"factory {'given' if spec.factory else 'missing'}, data {'given' if spec.data else 'missing'}",
            wanted="a factory that builds the module, and data for its example inputs",
            remedy="Choose a model that the Dag's author has listed, or give an ONNX file, which needs neither.",
        )
    model = build_model(context.resolve(spec.factory.path), spec.factory.options, spec.factory.path)
    fill_model(model, load_weights(path), source=spec.source)
    example = load_data(spec.data, "test", context.resolve)
    signature = write_torch(folder, model, factory=spec.factory, example=example.inputs, dynamic=spec.dynamic)
    return signature, torch_quality(model, spec.data, spec.metric, context.resolve, original="itself")


STEP = Step(
    name="ingest",
    summary="Take in weights for a factory, a transformers folder, an ONNX file, or an artifact.",
    spec=IngestSpec,
    function=ingest,
    version=2,
    libraries=("torch", "numpy", "safetensors", "onnx", "onnxruntime"),
    mark=_mark,
)
