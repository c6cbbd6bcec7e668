"""Where a model is taken in from: brings a file or a folder to this machine; looks into neither."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import wanted_files

if TYPE_CHECKING:
    from airflow_model_deploy.engine.artifacts import Store

SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx")


def local_source(source: str, store: Store, scratch: Path) -> Path:
    """Return a local path of the source, a file or a folder, fetched where it is a URL of the store's kind."""
    path = Path(source)
    if "://" in source:
        path = _fetched(source, store, scratch)
    if path.is_dir():
        return path
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"the model {source} is of no kind that can be taken in",
            found=f"a file ending in {path.suffix!r}" if path.is_file() else "no such folder",
            wanted=", ".join(SUFFIXES[:-1]) + " (state dicts), .onnx, or the folder of a transformers model",
            remedy="Save the weights with safetensors.torch.save_file, or export the model to ONNX.",
        )
    if not path.is_file():
        raise InputError(
            f"there is no model file at {source}",
            wanted="a .safetensors, .pt, .pth or .onnx file, a transformers folder, or the URI of an artifact",
            remedy="Correct the location, or put the file where the step runs.",
        )
    return path


def _fetched(source: str, store: Store, scratch: Path) -> Path:
    import fsspec

    scheme = source.partition("://")[0]
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
    elif file_system.isdir(remote):
        _fetch_folder(file_system, remote, path)
    return path


def _fetch_folder(file_system: Any, remote: str, target: Path) -> None:
    """Fetch what counts of a transformers folder, and nothing else that may lie there."""

    def read(name: str) -> Any:
        try:
            return json.loads(file_system.cat_file(f"{remote}/{name}"))
        except ValueError:
            return []  # what is wrong with it is told by whoever reads it here

    target.mkdir()
    listed = [str(path)[len(remote) :].strip("/") for path in file_system.find(remote)]
    for name in wanted_files(listed, read):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        file_system.get_file(f"{remote}/{name}", str(place))
