"""Checks a chain of artifacts offline: every file of one, and of all that it was made from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import Reference, Store

if TYPE_CHECKING:
    from collections.abc import Mapping


def verify(uri: str, digest: str | None = None, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Verify an artifact and its ancestors; returns them in the order visited.

    Raises:
        IntegrityError: names the first file or manifest that isn't what it should be.
    """
    store_url, _, name = uri.rstrip("/").rpartition("/artifacts/")
    store = Store(store_url, options)
    digest = digest or name.replace("-", ":", 1)
    queue: list[Reference] = [store.reference(digest)]
    seen: dict[str, dict[str, Any]] = {}
    while queue:
        reference = queue.pop(0)
        if reference.digest in seen:
            continue
        with tempfile.TemporaryDirectory(prefix="model-deploy-verify-") as scratch:
            _, manifest = store.fetch(reference, Path(scratch))
        description = manifest.description
        seen[reference.digest] = {
            "digest": reference.digest,
            "kind": description.kind,
            "step": description.step.name if description.step else None,
            "files": len(manifest.files),
            "size_bytes": manifest.size_bytes,
            "parents": description.parents,
        }
        queue += [store.reference(parent) for parent in description.parents.values()]
    return {"verified": len(seen), "artifacts": list(seen.values())}
