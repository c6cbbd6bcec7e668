"""The record of a measured choice: what was tried, what it cost, what was taken and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from airflow_model_deploy.engine.models import CpuFingerprint, OptimizationLevel, SessionSettings


@dataclass(frozen=True)
class Candidate:
    """One way of serving a graph.

    Args:
        name: e.g. "unchanged", "offline-extended".
        level: the level that ONNX Runtime rewrites the file at, offline; None leaves the file as it is.
        disabled_optimizers: optimizers of ONNX Runtime that may not run.
        unoptimized: served with graph optimization off although the file is the unchanged one.
    """

    name: str
    level: OptimizationLevel | None
    disabled_optimizers: tuple[str, ...] = ()
    unoptimized: bool = False

    @property
    def hardware_bound(self) -> bool:
        """Whether the file holds weights laid out for one kind of CPU."""
        return self.level in ("layout", "all")

    def settings(self, threads: int) -> SessionSettings:
        """How its file is served."""
        off = self.level is not None or self.unoptimized
        return SessionSettings(
            intra_op_threads=threads,
            graph_optimization_level="disable" if off else "all",
            disabled_optimizers=() if off else self.disabled_optimizers,
        )

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {"name": self.name, "level": self.level, "disabled_optimizers": list(self.disabled_optimizers)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Candidate:
        """The inverse of `to_json`."""
        return cls(value["name"], value["level"], tuple(value["disabled_optimizers"]))


@dataclass(frozen=True)
class Measurement:
    """What one candidate cost.

    Args:
        name: of the candidate.
        seconds: batch size -> seconds a call (CPU time with one thread, wall time with more).
        load_seconds: CPU seconds from the file to a session.
        size: bytes of the file.
        error: largest difference from the unoptimized source, relative to its largest output.
    """

    name: str
    seconds: dict[int, float]
    load_seconds: float
    size: int
    error: float

    def speedup(self, other: Measurement) -> float:
        """Geometric mean over the batch sizes of the other's time / this one's."""
        logs = [math.log(other.seconds[size] / seconds) for size, seconds in self.seconds.items()]
        return math.exp(sum(logs) / len(logs))

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values; an infinite error is null."""
        return {
            "name": self.name,
            "seconds": {str(size): seconds for size, seconds in self.seconds.items()},
            "load_seconds": self.load_seconds,
            "size": self.size,
            "error": self.error if math.isfinite(self.error) else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Measurement:
        """The inverse of `to_json`."""
        error = math.inf if value["error"] is None else value["error"]
        seconds = {int(size): seconds for size, seconds in value["seconds"].items()}
        return cls(value["name"], seconds, value["load_seconds"], value["size"], error)


@dataclass(frozen=True)
class Choice:
    """What was chosen for one source file on one kind of CPU, and the measurements behind it.

    Args:
        candidate: what was taken.
        settings: how its file is to be served.
        source_sha256: of the file that it was made for.
        gain: speed-up - 1 against the source at ONNX Runtime's defaults; see `choose`.
        gain_unoptimized: the same against the source with graph optimization off.
        reason: one readable clause.
        measurements: every candidate, and "unoptimized".
        cpu: the kind of CPU.
    """

    candidate: Candidate
    settings: SessionSettings
    source_sha256: str
    gain: float
    gain_unoptimized: float
    reason: str
    measurements: tuple[Measurement, ...]
    cpu: CpuFingerprint

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "schema_version": 1,
            "candidate": self.candidate.to_json(),
            "settings": self.settings.to_json(),
            "source_sha256": self.source_sha256,
            "gain": self.gain,
            "gain_unoptimized": self.gain_unoptimized,
            "reason": self.reason,
            "measurements": [m.to_json() for m in self.measurements],
            "cpu": self.cpu.to_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Choice:
        """The inverse of `to_json`."""
        return cls(
            candidate=Candidate.from_json(value["candidate"]),
            settings=SessionSettings.from_json(value["settings"]),
            source_sha256=value["source_sha256"],
            gain=value["gain"],
            gain_unoptimized=value["gain_unoptimized"],
            reason=value["reason"],
            measurements=tuple(Measurement.from_json(m) for m in value["measurements"]),
            cpu=CpuFingerprint.from_json(value["cpu"]),
        )
