"""Specs: frozen dataclasses that say what a step shall do, validated once, at the edge."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

Spec = TypeVar("Spec")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def spec(cls: type[Spec]) -> type[Spec]:
    """Make a class a frozen, keyword-only dataclass that refuses unknown fields."""
    made = dataclass(frozen=True, kw_only=True)(cls)
    made.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return made


def parse_spec(cls: type[Spec], value: Mapping[str, Any], *, step: str) -> Spec:
    """Validate JSON, or rendered templates, into a spec; text that spells a number counts as one.

    Raises:
        InputError: names every wrong field, what was found and what was wanted.
    """
    from pydantic import ValidationError

    try:
        return _adapter(cls).validate_python(dict(value))  # type: ignore[no-any-return]
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc'])) or 'spec'} = {e['input']!r:.80}: {e['msg']}"
            for e in error.errors(include_url=False)
        ]
        raise InputError(
            f"the spec of step {step!r} is not valid",
            found=" | ".join(problems),
            remedy=f"`model-deploy steps {step}` prints what it may hold.",
        ) from error


def spec_schema(cls: type[Any]) -> dict[str, Any]:
    """Return the JSON schema of a spec."""
    schema: dict[str, Any] = _adapter(cls).json_schema()
    return schema


def spec_json(value: Any) -> dict[str, Any]:
    """Return a spec as JSON values."""
    return _plain(asdict(value))  # type: ignore[no-any-return]


def _adapter(cls: type[Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
