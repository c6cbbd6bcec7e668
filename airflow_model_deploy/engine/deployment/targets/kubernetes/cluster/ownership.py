"""Who owns the fields of an object, as its managedFields tell; pure, calls no server.

A field that an apply leaves out goes only if nobody else owns it: who has set it once, even to the same value, keeps
it there. Handing ownership back is an edit of managedFields, which the API allows:
https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import MANAGER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import Object

Path = tuple[str, ...]  # as ("spec", "selector", "app")


def owned(obj: Object, path: Path) -> bool:
    """Say whether our applies own a field."""
    return any(_is_ours(entry) and _has(entry.get("fieldsV1"), path) for entry in _entries(obj))


def ceded(obj: Object, paths: Iterable[Path]) -> list[dict[str, Any]] | None:
    """Return managedFields in which nobody but our applies owns these fields; None: so it is already."""
    before = _entries(obj)
    after = before
    for path in paths:
        after = [one for entry in after if (one := entry if _is_ours(entry) else _ceding(entry, path))]
    return after if after != before else None


def _entries(obj: Object) -> list[dict[str, Any]]:
    return list(obj["metadata"].get("managedFields") or ())


def _is_ours(entry: dict[str, Any]) -> bool:
    return bool(entry.get("manager") == MANAGER and entry.get("operation") == "Apply")


def _has(fields: dict[str, Any] | None, path: Path) -> bool:
    for name in path:
        if not fields or f"f:{name}" not in fields:
            return False
        fields = fields[f"f:{name}"]
    return True


def _ceding(entry: dict[str, Any], path: Path) -> dict[str, Any] | None:
    left = _without(entry.get("fieldsV1") or {}, path)
    return entry | {"fieldsV1": left} if left else None


def _without(fields: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return fields less a path; what is left empty goes, too: as a leaf it would mean the whole field."""
    head, rest = f"f:{path[0]}", path[1:]
    if head not in fields:
        return fields
    left = _without(fields[head], rest) if rest else {}
    others = {name: value for name, value in fields.items() if name != head}
    return others | {head: left} if left else others
