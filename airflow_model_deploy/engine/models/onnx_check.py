"""Decides whether an ONNX file from outside may be used: complete, valid, runnable, inside its folder."""

from __future__ import annotations

from pathlib import Path

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.onnx_external import check_location
from airflow_model_deploy.engine.models.onnx_file import external_locations, load_onnx, read_signature
from airflow_model_deploy.engine.models.runtime import SessionSettings, create_session


def check_onnx(path: str | Path) -> None:
    """Raise InputError unless the file is a valid model that ONNX Runtime can load from its own folder.

    Checked in this order: it parses; external data stays in the folder (no absolute path, no "..", no link,
    nothing missing or cut off); the ONNX checker with shape inference; a session without optimizations.
    """
    import onnx

    path = Path(path)
    model = load_onnx(path)
    for location, offset, length in external_locations(model):
        # Of a file from outside nobody has told the sha256: another name of it may be a secret's.
        if check_location(path, location, offset, length).st_nlink > 1:
            raise InputError(
                f"external data of {path}",
                found=f"{location} is a hard link",
                wanted="a plain file inside the model's folder",
                remedy="Copy the file.",
            )
    read_signature(path)  # before the checker, which wouldn't name the tensor
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(
            f"model {path}",
            found=" ".join(str(error).split())[:400],
            wanted="a graph that the ONNX checker accepts",
            remedy="Export it again.",
        ) from error
    create_session(path, SessionSettings(graph_optimization_level="disable"))
