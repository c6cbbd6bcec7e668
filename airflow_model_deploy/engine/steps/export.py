"""Write a model as fp32 ONNX. Other steps call it for the graph they work on, and share its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, Reference
from airflow_model_deploy.engine.compression import export_onnx
from airflow_model_deploy.engine.models import copy_onnx, load_torch_model, onnx_precision, read_signature
from airflow_model_deploy.engine.steps.base import Input, Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.spec import spec
from airflow_model_deploy.engine.steps.torch_artifacts import read_example

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "model.onnx"


@spec
class ExportSpec:
    """How the graph is written."""

    opset: Annotated[int, Field(ge=17, le=24, description="20 is what every quantizer here reads")] = 20


def export(spec: ExportSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Export a torch model; batch and whatever its signature leaves open may vary. ONNX is passed on."""
    source = inputs["model"]
    if source.format == "onnx":
        return StepOutput(passed_on=source.reference)
    import torch

    model = load_torch_model(source.folder, context.resolve)
    example = {name: torch.from_numpy(array) for name, array in read_example(source.folder).items()}
    folder = context.folder("model")
    signature = source.manifest.description.signature
    names = [tensor.name for tensor in signature.outputs] if signature else None
    export_onnx(
        model,
        example,
        folder / MODEL,
        output_names=names,
        dynamic_dims=signature.dynamic if signature else None,
        opset=spec.opset,
    )
    return StepOutput(
        folder=folder,
        description=Description(
            name=source.name,
            kind="model",
            format="onnx",
            signature=read_signature(folder / MODEL),
            metrics={"precision": onnx_precision(folder / MODEL), "opset": spec.opset},
        ),
        main="model",
    )


def onnx_of(model: Input, context: StepContext) -> tuple[Reference, Path]:
    """Return the fp32 ONNX artifact of a model and its file, exported once a model and then shared."""
    if model.format == "onnx":
        return model.reference, model.folder / MODEL
    result = context.run("export", {}, {"model": model.reference})
    if result.artifact is None:
        raise TypeError("the export step published no artifact")
    folder, _ = context.store.fetch(result.artifact, context.scratch)
    return result.artifact, folder / MODEL


def copy_model(source: Path, folder: Path) -> Path:
    """Copy an ONNX file, and the weights beside it, into an artifact's folder under its usual name."""
    return copy_onnx(source, folder / MODEL)


STEP = Step(
    name="export",
    summary="Write a model as fp32 ONNX.",
    spec=ExportSpec,
    function=export,
    inputs=("model",),
    libraries=("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors"),
)
