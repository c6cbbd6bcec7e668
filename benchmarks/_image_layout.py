"""OCI layouts on disk: a base without content to build on, and what an image in one weighs."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_MANIFEST, _CONFIG = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
)
_PIECE = 1 << 20


def write_empty_base(folder: Path, architecture: str) -> str:
    """Write an image without layers; returns its reference."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    described = _blob(folder, _CONFIG, {**config, "config": {}})
    manifest = _blob(
        folder, _MANIFEST, {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": []}
    )
    named = {**manifest, "annotations": {"org.opencontainers.image.ref.name": "empty"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci-layout:{folder}:empty"


def layer_sizes(folder: Path, digest: str) -> list[dict[str, int]]:
    """The size of every layer of an image, as it travels and unpacked, in bytes."""
    manifest = json.loads(_path(folder, digest).read_bytes())
    return [
        {"travels": layer["size"], "unpacked": _unpacked(_path(folder, layer["digest"]))}
        for layer in manifest["layers"]
    ]


def _unpacked(path: Path) -> int:
    with gzip.open(path, "rb") as stream:
        return sum(len(piece) for piece in iter(lambda: stream.read(_PIECE), b""))


def _blob(folder: Path, media_type: str, value: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps(value).encode()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    _path(folder, digest).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _path(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
