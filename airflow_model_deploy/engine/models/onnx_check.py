"""Decides whether an ONNX file from outside may be used: complete, valid, runnable, inside its folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from airflow_model_deploy.engine.errors import InputError
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
        _check_location(path, location, offset, length)
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


def _check_location(path: Path, location: str, offset: int, length: int | None) -> None:
    thing = f"external data of {path}"
    wanted = "a plain file inside the model's folder"
    parts = PurePosixPath(location.replace("\\", "/")).parts
    outside = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor) or ".." in parts
    if not location or outside:
        raise InputError(
            thing, found=f"location {location!r}", wanted=wanted, remedy="Save it beside the model."
        )
    file = path.parent / location
    step = path.parent
    for part in PurePosixPath(location).parts:
        step = step / part
        if step.is_symlink():
            raise InputError(
                thing, found=f"{location} is a symbolic link", wanted=wanted, remedy="Copy the file."
            )
    if not file.is_file():
        raise InputError(
            thing, found=f"{location} is missing", wanted=wanted, remedy="Copy it beside the model."
        )
    status = file.stat()
    if status.st_nlink > 1:
        raise InputError(thing, found=f"{location} is a hard link", wanted=wanted, remedy="Copy the file.")
    end = offset + (length or 0)
    if offset < 0 or (length or 0) < 0 or end > status.st_size:
        raise InputError(
            thing,
            found=f"{location} of {status.st_size} bytes, of which {offset}..{end} are wanted",
            wanted="the complete file",
            remedy="Copy it again.",
        )
