"""Take in a model that exists: weights for a factory, an ONNX file, or an artifact of the store."""

from __future__ import annotations

import logging
import re
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, Reference, Signature, Store, file_sha256
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.models import (
    DataSource,
    UserFunction,
    build_model,
    check_onnx,
    fill_model,
    load_data,
    load_onnx,
    load_weights,
    onnx_precision,
    read_factory,
    read_signature,
    save_onnx,
)
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.export import MODEL
from airflow_model_deploy.engine.steps.fields import Dynamic, Metric, Name
from airflow_model_deploy.engine.steps.quality import onnx_quality, torch_quality
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import write_torch

logger = logging.getLogger(__name__)

_SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx")
_ARTIFACT = re.compile(r"/artifacts/sha256-([0-9a-f]{64})/?$")


@spec
class IngestSpec:
    """Where the model is, and what is needed to load and judge it."""

    name: Name
    source: Annotated[
        str,
        Field(
            min_length=1,
            description="a .safetensors, .pt or .pth file with a state dict, an .onnx file (a path or a URL that"
            " fsspec reads), or the URI of an artifact in the store",
        ),
    ]
    sha256: Annotated[
        str | None, Field(pattern=r"^[0-9a-f]{64}$", description="what the file must hash to")
    ] = None
    factory: Annotated[
        UserFunction | None, Field(description="returns the torch.nn.Module for the weights")
    ] = None
    data: Annotated[
        DataSource | None, Field(description="example inputs and the test split; a torch model needs it")
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
    path = _local(spec.source, context.store, context.folder("source"))
    found = file_sha256(path)
    if spec.sha256 and found != spec.sha256:
        raise IntegrityError(
            f"the model file {spec.source} is not the one asked for",
            found=f"sha256 {found}",
            wanted=f"sha256 {spec.sha256}",
            remedy="Get the file again, or correct the sha256.",
        )
    folder = context.folder("model")
    if path.suffix == ".onnx":
        signature, metrics, form = *_onnx(spec, path, folder, context), "onnx"
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
    if description.format == "torch" and read_factory(folder).path != listed:
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
    # An ONNX file may have its weights in files beside it, which its sha256 doesn't cover.
    if path.suffix == ".onnx":
        return None
    # What a URL holds isn't known without fetching it.
    return spec.sha256 or (file_sha256(path) if path.is_file() else None)


def _onnx(
    spec: IngestSpec, path: Path, folder: Path, context: StepContext
) -> tuple[Signature, dict[str, object]]:
    check_onnx(path)
    # Loaded and saved, so that weights kept in files beside the graph come along.
    save_onnx(load_onnx(path, external_data=True), folder / MODEL)
    quality = onnx_quality(path, spec.data, spec.metric, context.resolve)
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
    return signature, torch_quality(model, spec.data, spec.metric, context.resolve)


def _local(source: str, store: Store, scratch: Path) -> Path:
    """Return a local path of the source, fetched where it is a URL of the store's kind."""
    if PurePosixPath(source).suffix not in _SUFFIXES:
        raise InputError(
            f"the model file {source} is of no kind that can be taken in",
            found=PurePosixPath(source).suffix or "no suffix",
            wanted=", ".join(_SUFFIXES[:-1]) + " (state dicts), or .onnx",
            remedy="Save the weights with safetensors.torch.save_file, or export the model to ONNX.",
        )
    scheme, separator, _ = source.partition("://")
    path = Path(source)
    if separator:
        import fsspec

        # Whoever fills a form may name a source: what else the worker could reach is none of theirs.
        allowed = {"file", store.url.partition("://")[0]}
        if scheme not in allowed or "::" in source:
            raise InputError(
                f"the source {source} is of a kind that isn't read",
                found=scheme,
                wanted=" or ".join(sorted(allowed)) + ", as the store is, or a path",
                remedy="Put the file beside the store, or on the machine where the step runs.",
            )
        file_system, remote = fsspec.core.url_to_fs(source)
        path = scratch / PurePosixPath(remote).name
        if file_system.isfile(remote):
            file_system.get_file(remote, str(path))
    if not path.is_file():
        raise InputError(
            f"there is no model file at {source}",
            wanted="a .safetensors, .pt, .pth or .onnx file, or the URI of an artifact",
            remedy="Correct the location, or put the file where the step runs.",
        )
    return path


STEP = Step(
    name="ingest",
    summary="Take in weights for a factory, an ONNX file, or an artifact.",
    spec=IngestSpec,
    function=ingest,
    libraries=("torch", "numpy", "safetensors", "onnx", "onnxruntime"),
    mark=_mark,
)
