"""What an apply would change, asked of the server itself by a dry run; changes nothing and shows no value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.refusals import (
    AbsentError,
    ConflictError,
)
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.calls import Object
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.client import Cluster

Verb = Literal["create", "change", "none", "conflict", "unknown"]

# What the server keeps for itself: it differs between two looks at the same object.
_SERVERS = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")
_KEYS = ("name", "containerPort", "port", "mountPath", "key", "ip")  # what tells the items of a list apart
_GONE = object()


@dataclass(frozen=True)
class Change:
    """What an apply would do with one object.

    Args:
        verb: "conflict": another manager owns a field; "unknown": the server can't tell.
        kind: of the object.
        name: of the object.
        paths: the fields that would change or that conflict, as "spec.template.spec.containers[server].image".
        note: who owns the fields of a conflict, or why the server can't tell.
    """

    verb: Verb
    kind: str
    name: str
    paths: tuple[str, ...] = ()
    note: str = ""


def diff(cluster: Cluster, wanted: Sequence[Object]) -> list[Change]:
    """What applying the objects would change, in their order; two calls an object.

    Raises:
        ForbiddenError: we may not apply such an object.
        InputError: the server refuses it.
    """
    return [_change(cluster, obj) for obj in wanted]


def _change(cluster: Cluster, obj: Object) -> Change:
    kind, name = str(obj["kind"]), str(obj["metadata"]["name"])
    live = cluster.get(kind, name)
    try:
        would = cluster.apply(obj, dry_run=True)
    except ConflictError as e:
        owners = " and ".join(e.managers)
        return Change("conflict", kind, name, tuple(f.lstrip(".") for f in e.fields), f"owned by {owners}")
    except AbsentError as e:
        return Change("unknown", kind, name, note=f"the server has no such kind: {e.found}")
    except InputError as e:
        if "dry run" not in str(e.found):
            raise
        return Change("unknown", kind, name, note=f"no dry run of it is allowed: {e.found}")
    if live is None:
        return Change("create", kind, name)
    paths = tuple(sorted(set(_paths("", _own(live), _own(would)))))
    return Change("change" if paths else "none", kind, name, paths)


def _own(obj: Object) -> Object:
    """An object without what only the server writes."""
    meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in _SERVERS}
    return {k: v for k, v in obj.items() if k != "status"} | {"metadata": meta}


def _paths(where: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _paths(_dotted(where, str(key)), old.get(key, _GONE), new.get(key, _GONE))
    elif isinstance(old, list) and isinstance(new, list):
        before, after = _by_key(old, new)
        for key in before.keys() | after.keys():
            yield from _paths(f"{where}[{key}]", before.get(key, _GONE), after.get(key, _GONE))
    else:
        yield where


def _dotted(where: str, key: str) -> str:
    part = f"[{key}]" if "." in key or "/" in key else key
    return f"{where}.{part}" if where and part == key else f"{where}{part}"


def _by_key(old: list[Any], new: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both lists' items by what names them, or by their position where nothing does."""
    items = [*old, *new]
    for key in _KEYS:
        if all(isinstance(item, dict) and key in item for item in items):
            before, after = ({str(item[key]): item for item in side} for side in (old, new))
            if len(before) == len(old) and len(after) == len(new):
                return before, after
    return {str(i): item for i, item in enumerate(old)}, {str(i): item for i, item in enumerate(new)}
