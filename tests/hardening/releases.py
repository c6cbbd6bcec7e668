"""Releases made from another one by hand: consistent to the last checksum, and yet not the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import Description, canonical_json, file_sha256, list_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_model_deploy.engine.artifacts import Reference, Store


def remade(
    store: Store, release: Reference, folder: Path, version: str, change: Callable[[Path], None] | None = None
) -> Reference:
    """Publish a copy of a release under another version, its servable changed, every digest made to fit."""
    source, manifest = store.fetch(release)
    shutil.copytree(source, folder)
    bundle, servable = folder / "bundle", folder / "bundle" / "servable"
    if change:
        change(servable)
    index = json.loads((servable / "servable.json").read_bytes())
    for entry in index["files"]:
        path = servable / entry["path"]
        entry.update(size=path.stat().st_size, sha256=file_sha256(path))
    index["version"] = version
    (servable / "servable.json").write_bytes(canonical_json(index))
    (bundle / "SHA256SUMS").unlink()
    sums = "".join(f"{entry.sha256}  {entry.path}\n" for entry in list_files(bundle)).encode()
    (bundle / "SHA256SUMS").write_bytes(sums)
    document = json.loads((folder / "release.json").read_bytes())
    document["bundle_digest"] = document["blessing"]["bundle_digest"] = _digest(sums)
    document["plan"]["servable_digest"] = _digest((servable / "servable.json").read_bytes())
    (folder / "release.json").write_bytes(canonical_json(document))
    reference, _ = store.publish(folder, Description(manifest.description.name, "release", "host-bundle"))
    return reference


def other_weights(servable: Path) -> None:
    """Make it another model: the largest weights with the opposite sign; the golden answers stay."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(servable / "model.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    onnx.save(model, servable / "model.onnx")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
