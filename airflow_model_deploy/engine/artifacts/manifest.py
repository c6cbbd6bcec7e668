"""The manifest: what an artifact holds, where it came from and what was measured on it.

Timings, hosts and paths never enter it, so the same work on another day or machine has the same digest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow_model_deploy.engine.artifacts.canonical import digest_of
from airflow_model_deploy.engine.artifacts.signature import Signature
from airflow_model_deploy.engine.errors import IntegrityError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FileEntry:
    """One file: its path inside the artifact ("/" between parts), size in bytes, hex sha256."""

    path: str
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {"path": self.path, "size": self.size, "sha256": self.sha256}


@dataclass(frozen=True)
class StepRecord:
    """The step that made an artifact: its name, its spec and the versions of the libraries it declares."""

    name: str
    version: int
    spec: dict[str, Any]
    tools: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {"name": self.name, "version": self.version, "spec": self.spec, "tools": self.tools}


@dataclass(frozen=True)
class Description:
    """All of a manifest but its files: what a step says about the folder it wrote.

    Args:
        name: the model's name.
        kind: what the artifact is: "model", "servable", "evaluation", "plan", "release", "code".
        format: how it is written: "torch", "onnx", "servable", "json", "host-bundle", "python".
        parents: digests of the artifacts it was made from, by role ("model", "baseline").
        metrics: figures that the same work gives again (accuracy, sparsity, sizes), never timings.
    """

    name: str
    kind: str
    format: str
    signature: Signature | None = None
    parents: dict[str, str] = field(default_factory=dict)
    step: StepRecord | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A published artifact: its description and its files."""

    description: Description
    files: tuple[FileEntry, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """Return "sha256:<hex>" of the canonical manifest."""
        return digest_of(self.to_json())

    @property
    def size_bytes(self) -> int:
        """Return the size of all files together."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        d = self.description
        return {
            "schema_version": self.schema_version,
            "name": d.name,
            "kind": d.kind,
            "format": d.format,
            "files": [entry.to_json() for entry in self.files],
            "signature": d.signature.to_json() if d.signature else None,
            "parents": d.parents,
            "step": d.step.to_json() if d.step else None,
            "metrics": d.metrics,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], *, source: str) -> Manifest:
        """Read a manifest; `source` names it in errors."""
        found = value.get("schema_version") if isinstance(value, dict) else type(value).__name__
        if found != SCHEMA_VERSION:
            raise IntegrityError(
                f"manifest {source} has another schema version",
                found=found,
                wanted=SCHEMA_VERSION,
                remedy="Use the version of airflow-model-deploy that wrote it, or run the step again.",
            )
        try:
            return cls(
                description=Description(
                    name=value["name"],
                    kind=value["kind"],
                    format=value["format"],
                    signature=Signature.from_json(value["signature"]) if value["signature"] else None,
                    parents=dict(value["parents"]),
                    step=StepRecord(**value["step"]) if value["step"] else None,
                    metrics=dict(value["metrics"]),
                ),
                files=tuple(FileEntry(**entry) for entry in value["files"]),
            )
        except (KeyError, TypeError) as error:
            raise IntegrityError(
                f"manifest {source} is damaged",
                found=repr(error),
                wanted="the fields of schema version 1",
                remedy="Run the step that made it again.",
            ) from error
