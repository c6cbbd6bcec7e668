"""The metadata that every object begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def metadata(
    name: str, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return an object's metadata; an empty namespace and empty annotations are left out."""
    return (
        {"name": name, "labels": dict(labels)}
        | ({"namespace": namespace} if namespace else {})
        | ({"annotations": dict(annotations)} if annotations else {})
    )
