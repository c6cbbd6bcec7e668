"""Checks that settings for a cluster share; each refusal says what to write instead. Knows none of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_model_deploy.engine.errors import InputError


def require(ok: bool, thing: str, found: object, wanted: str, remedy: str) -> None:
    """Raise InputError, with what to do, unless `ok`."""
    if not ok:
        raise InputError(thing, found=found, wanted=wanted, remedy=remedy)


def is_whole(value: object, least: int, most: int | None = None) -> bool:
    """Whether it is a whole number within the bounds (true and false are none)."""
    return type(value) is int and value >= least and (most is None or value <= most)


def is_text(value: object) -> bool:
    """Whether it is a text that says something."""
    return isinstance(value, str) and bool(value.strip())


def maps_text(value: object) -> bool:
    """Whether it is a mapping of text to text; YAML's bare `true` and `1` are none."""
    return isinstance(value, Mapping) and all(
        is_text(key) and isinstance(item, str) for key, item in value.items()
    )


def is_object(value: object, keys: frozenset[str]) -> bool:
    """Whether it is a mapping that holds some of these keys and no others."""
    return isinstance(value, Mapping) and bool(value) and set(value) <= keys


def are_objects(values: object, keys: frozenset[str]) -> bool:
    """Whether it is a tuple of such mappings."""
    return isinstance(values, tuple) and all(is_object(value, keys) for value in values)


def with_tuples(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON object with these lists as tuples."""
    return {
        key: tuple(item) if key in names and isinstance(item, list) else item for key, item in value.items()
    }
