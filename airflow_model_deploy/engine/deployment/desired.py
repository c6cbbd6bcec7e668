"""The traffic decision of a service; knows no place where it is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from airflow_model_deploy.engine.errors import InputError

SCHEMA_VERSION = 1
Action = Literal["deploy", "rollback"]


@dataclass(frozen=True)
class Desired:
    """The traffic decision.

    Args:
        generation: grows by one with every write.
        live: the revision that gets the public requests.
        previous: where a rollback leads.
        candidate: a revision that runs beside it and gets none.
        unconfirmed: what made `live` the live one, until it was checked at the public address.
        attempt: the caller's key of the rollback that made `live` the live one.
    """

    generation: int = 0
    live: str | None = None
    previous: str | None = None
    candidate: str | None = None
    unconfirmed: Action | None = None
    host: str | None = None
    port: int | None = None
    attempt: str | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """The revisions that run."""
        return tuple(name for name in (self.live, self.candidate) if name)

    def to_json(self) -> dict[str, Any]:
        """Return the decision as it is written."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def parse_desired(document: dict[str, Any], where: str) -> Desired:
    """Return a written decision.

    Raises:
        InputError: it was written by a version that this one doesn't know.
    """
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"schema_version of {where}", found=document.get("schema_version"), wanted=SCHEMA_VERSION
        )
    known: dict[str, Any] = {name: document.get(name) for name in Desired.__dataclass_fields__}
    return Desired(**known)
