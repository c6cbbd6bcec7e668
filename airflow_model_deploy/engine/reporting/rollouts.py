"""Rollouts as the report shows them: reads what a cluster keeps of each, and the shares that its counts mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation import wilson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROLLOUT = ("revision", "action", "result", "reason", "at", "changes", "left_out", "golden", "phases")
_PHASE = ("name", "status", "watched_s", "reasons", "canary", "stable")
_TRACK = ("requests", "errors", "slow", "restarts", "ready", "wanted")
_GOLDEN = ("total", "matched")


def rollouts_part(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the report shows of rollouts, in their order: every key there, null where nothing is known.

    Of the keys of an entry, a phase or a track, those that the report doesn't show are left out.

    Raises:
        InputError: a part has the wrong type.
    """
    return [_rollout(one) for one in found]


def _rollout(found: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: found.get(key) for key in _ROLLOUT}
    golden = row["golden"]
    return {
        **{key: _text(row[key], key) for key in ("revision", "action", "result", "reason", "at")},
        "changes": _texts(row["changes"], "changes"),
        "left_out": _texts(row["left_out"], "left_out"),
        "golden": None if golden is None else _counts(golden, _GOLDEN, "golden"),
        "phases": [_phase(one) for one in _objects(row["phases"], "phases")],
    }


def _phase(found: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: found.get(key) for key in _PHASE}
    what = f"phase {row['name']}"
    canary, stable = (_track(row[key], what) for key in ("canary", "stable"))
    return {
        "name": _text(row["name"], "name of a phase"),
        "status": _text(row["status"], what),
        "watched_s": _figure(row["watched_s"], what),
        "reasons": _texts(row["reasons"], what),
        "request_share": _request_share(canary, stable),
        "canary": canary,
        "stable": stable,
    }


def _track(found: Any, what: str) -> dict[str, Any] | None:
    if found is None:
        return None
    row = _counts(found, _TRACK, what)
    answered = None
    if row["requests"] is not None and row["errors"] is not None:
        answered = row["requests"] - row["errors"]
    return {
        **row,
        **_share("error", row["errors"], row["requests"]),
        # Failed requests have no latency that an objective would be about.
        **_share("slow", row["slow"], answered),
    }


def _share(name: str, part: int | None, whole: int | None) -> dict[str, Any]:
    """The share of a part and its 95 % confidence interval (Wilson's)."""
    if part is None or not whole or part > whole:
        return {f"{name}_share": None, f"{name}_interval": None}
    return {f"{name}_share": part / whole, f"{name}_interval": list(wilson(part, whole))}


def _request_share(canary: dict[str, Any] | None, stable: dict[str, Any] | None) -> float | None:
    """The share of all requests that the new revision got; None where it was alone, or nobody knows."""
    if canary is None or stable is None or canary["requests"] is None or stable["requests"] is None:
        return None
    both = canary["requests"] + stable["requests"]
    return canary["requests"] / both if both else None


def _counts(part: Any, keys: tuple[str, ...], what: str) -> dict[str, int | None]:
    if not hasattr(part, "get"):
        raise _wrong(what, part, "an object")
    found = {key: part.get(key) for key in keys}
    for key, value in found.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise _wrong(f"{what}: {key}", value, "a whole number or null")
    return found


def _figure(value: Any, what: str) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _wrong(what, value, "a number or null")


def _text(value: Any, what: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _wrong(what, value, "a text or null")


def _texts(value: Any, what: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise _wrong(what, value, "a list of texts")
    return [str(one) for one in value]


def _objects(value: Any, what: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not all(hasattr(one, "get") for one in value):
        raise _wrong(what, value, "a list of objects")
    return list(value)


def _wrong(what: str, value: Any, wanted: str) -> InputError:
    return InputError(f"a report's rollout: {what}", found=repr(value)[:100], wanted=wanted)
