"""A reference: where an artifact is and which one it must be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from airflow_model_deploy.engine.errors import InputError

_PLACE = re.compile(r"/artifacts/sha256-([0-9a-f]{64})/?$")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """What travels between steps and through XCom.

    Args:
        uri: the artifact's folder in its store ("file:///…/artifacts/sha256-…").
        digest: "sha256:<hex>" of the canonical manifest.
    """

    uri: str
    digest: str

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest):
            raise InputError(
                "an artifact reference has no valid digest",
                found=self.digest,
                wanted="sha256:<64 hex digits>",
                remedy="Pass the `artifact` of a step's result.",
            )

    @property
    def short(self) -> str:
        """Return the first 12 hex digits of the digest."""
        return self.digest.removeprefix("sha256:")[:12]

    def to_json(self) -> dict[str, str]:
        """Return the same as JSON values."""
        return {"uri": self.uri, "digest": self.digest}

    @classmethod
    def from_json(cls, value: Any) -> Reference:
        """Read {"uri", "digest"}, a step's result that holds one under "artifact", or the uri alone."""
        if isinstance(value, str) and (match := _PLACE.search(value)):
            return cls(uri=value.rstrip("/"), digest=f"sha256:{match[1]}")
        if isinstance(value, dict) and isinstance(value.get("artifact"), dict):
            value = value["artifact"]
        if (
            isinstance(value, dict)
            and isinstance(value.get("uri"), str)
            and isinstance(value.get("digest"), str)
        ):
            return cls(uri=value["uri"], digest=value["digest"])
        raise InputError(
            "this is no artifact reference",
            found=repr(value)[:200],
            wanted='{"uri": …, "digest": …} or the result of a step',
            remedy="Pass another task's output, or the uri and digest of a published artifact.",
        )
