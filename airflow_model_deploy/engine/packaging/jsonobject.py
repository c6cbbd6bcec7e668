"""Frozen dataclasses as strict JSON objects, and the checks of their fields; knows none of the objects."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, fields
from typing import Any, Self

from airflow_model_deploy.engine.errors import InputError

NAME_WANTED = "letters, digits, '.', '_', '-'; a letter or digit first; at most 128"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check(ok: bool, thing: str, found: object, wanted: str) -> None:
    """Raise InputError unless `ok`."""
    if not ok:
        raise InputError(thing, found=found, wanted=wanted)


def is_name(value: object) -> bool:
    """Whether it may stand in a URL, a file's name and a label as it is."""
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def is_number(value: object) -> bool:
    """Whether it is a finite number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: object) -> bool:
    """Whether it is a number above 0."""
    return isinstance(value, int | float) and is_number(value) and value > 0


def is_share(value: object) -> bool:
    """Whether it is a number between 0 and 1."""
    return isinstance(value, int | float) and is_number(value) and 0 <= value <= 1


class JsonObject:
    """To and from JSON objects whose keys are the fields' names; an unknown or missing key is refused."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read and validate; InputError names what doesn't fit."""
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        check(isinstance(value, dict), cls.__name__, value, "a JSON object")
        check(set(value) <= names, cls.__name__, sorted(set(value) - names), f"only {sorted(names)}")
        try:
            return cls(**cls._parsed(value))
        except TypeError as e:
            raise InputError(f"{cls.__name__} is incomplete", found=str(e)) from e

    @classmethod
    def _parsed(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Turn nested JSON into the fields' types."""
        return value


def check_digest(value: object, thing: str) -> None:
    """Refuse what isn't "sha256:<64 hex digits>"."""
    check(isinstance(value, str) and bool(_DIGEST.fullmatch(value)), thing, value, "sha256:<64 hex digits>")
