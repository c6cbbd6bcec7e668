"""Who owns the fields of an object, as its managedFields tell; pure, calls no server.

A field that an apply leaves out goes only if we own it and nobody else does: who has set it once, even to the same
value, keeps it there. Ownership is changed by an edit of managedFields, which the API allows and which changes
nothing else: https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import MANAGER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import Object

Path = tuple[str, ...]  # as ("spec", "selector", "app")
Fields = dict[str, Any]


def claimed(obj: Object, paths: Sequence[Path]) -> list[dict[str, Any]] | None:
    """Return managedFields by which our applies own these fields of a map, and nobody else does.

    None: there is nothing to change, as newer servers know no owners below a Service's selector: there an apply
    replaces it whole. Or we have applied nothing yet.
    """
    before = list(obj["metadata"].get("managedFields") or ())
    paths = [path for path in paths if not any(_at(entry, path[:-1]) == {} for entry in before)]
    if not any(map(_is_ours, before)):
        return None
    after = before
    for path in paths:
        changed = [(_with if _is_ours(entry) else _without)(_fields(entry), path) for entry in after]
        after = [entry | {"fieldsV1": fields} for entry, fields in zip(after, changed, strict=True) if fields]
    return after if after != before else None


def _is_ours(entry: dict[str, Any]) -> bool:
    return bool(entry.get("manager") == MANAGER and entry.get("operation") == "Apply")


def _fields(entry: dict[str, Any]) -> Fields:
    return dict(entry.get("fieldsV1") or {})


def _at(entry: dict[str, Any], path: Path) -> Any:
    found: Any = _fields(entry)
    for name in path:
        found = (found or {}).get(f"f:{name}")
    return found


def _with(fields: Fields, path: Path) -> Fields:
    head, rest = f"f:{path[0]}", path[1:]
    return fields | {head: _with(fields.get(head) or {}, rest) if rest else fields.get(head, {})}


def _without(fields: Fields, path: Path) -> Fields:
    """Return fields less a path; what is left empty goes, too: as a leaf it would mean the whole field."""
    head, rest = f"f:{path[0]}", path[1:]
    if head not in fields:
        return fields
    left = _without(fields[head], rest) if rest else {}
    others = {name: value for name, value in fields.items() if name != head}
    return others | {head: left} if left else others
