"""The compression plan: a budget, what is done to the model, what was predicted and what was verified.

A plan is a file that people read, edit and run again: `structure` and `formats` are what is done, the rest is told.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAN_VERSION = 1
Objective = Literal["balanced", "latency", "size"]
_SLACK = 1e-9  # a drop of exactly the budget keeps it, whatever its last bit


@dataclass(frozen=True)
class Budget:
    """What compression may cost at most, and has to reach.

    Args:
        max_drop: of quality, against the original: percentage points for shares (accuracy, cosine, ...), else the
            metric's own unit; None: whatever it costs.
        max_size_bytes: of the model file.
        max_latency_ms: CPU milliseconds of a single request, on one thread.
    """

    max_drop: float | None = 1.0
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"budget {one.name}", found=value, wanted="a finite number, at least 0")

    def broken_by(self, found: Verified) -> tuple[str, ...]:
        """What exceeds the budget, in words."""
        broken = []
        if self.max_drop is not None:
            if found.drop is None:
                broken.append("the quality was not measured")
            elif self.loses_too_much(found):
                broken.append(f"quality drops by {found.drop:.4g}, allowed are {self.max_drop:.4g}")
        if self.max_size_bytes is not None and found.size_bytes > self.max_size_bytes:
            broken.append(f"{found.size_bytes} bytes, allowed are {self.max_size_bytes}")
        if self.max_latency_ms is not None and found.latency_ms > self.max_latency_ms:
            broken.append(f"{found.latency_ms:.4g} ms a request, allowed are {self.max_latency_ms:.4g}")
        return tuple(broken)

    def loses_too_much(self, found: Verified) -> bool:
        """Whether the drop of quality alone exceeds the budget."""
        return self.max_drop is not None and found.drop is not None and found.drop > self.max_drop + _SLACK


@dataclass(frozen=True)
class Verified:
    """What a built candidate turned out to be.

    Args:
        quality: by the user's metric on the test samples; None where it can't be measured.
        baseline_quality: the original's.
        drop: how much worse than the original, as `Budget.max_drop` counts it.
        loss: distance of its answers from those of the float model that was quantized, on the planning samples.
        loss_held_out: the same on the test samples.
        size_bytes: of the file.
        latency_ms: CPU milliseconds of a single request.
        baseline_size_bytes: of the original's fp32 export.
        baseline_latency_ms: the original's at ONNX Runtime's defaults, measured in turns with it.
    """

    quality: float | None
    baseline_quality: float | None
    drop: float | None
    loss: float
    loss_held_out: float | None
    size_bytes: int
    latency_ms: float
    baseline_size_bytes: int
    baseline_latency_ms: float

    def cost(self, objective: Objective) -> float:
        """What is made small: share of the original's latency, of its size, or the geometric mean of both."""
        latency = self.latency_ms / self.baseline_latency_ms
        size = self.size_bytes / self.baseline_size_bytes
        return {"latency": latency, "size": size, "balanced": math.sqrt(latency * size)}[objective]


@dataclass(frozen=True)
class Structure:
    """What is cut out of the model, and how the rest recovers."""

    method: Literal["channels", "ffn"]
    ratio: float
    norm: Literal["l1", "l2", "taylor"] = "l2"
    round_to: int | None = None
    recovery_epochs: int = 0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Treatment:
    """What is done to a model: the part of a plan that can be edited.

    Args:
        structure: None leaves the structure as it is.
        formats: node of the exported graph -> format; nodes not named stay fp32.
    """

    structure: Structure | None = None
    formats: dict[str, str] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @property
    def name(self) -> str:
        """In a few words: "channels 70 %, 8 x int8-static"."""
        counts: dict[str, int] = {}
        for wanted in self.formats.values():
            if wanted != "fp32":
                counts[wanted] = counts.get(wanted, 0) + 1
        parts = [f"{self.structure.method} {100 * self.structure.ratio:.3g} %"] if self.structure else []
        parts += [
            f"{count} x {wanted}" for wanted, count in sorted(counts.items(), key=lambda i: (-i[1], i[0]))
        ]
        return ", ".join(parts) or "fp32"

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def treatment_of(plan: Mapping[str, Any]) -> Treatment:
    """What a plan, perhaps an edited one, says to do.

    Raises:
        InputError: it is no plan, or says something that can't be done.
    """
    version = plan.get("schema_version")
    if version != PLAN_VERSION or "formats" not in plan:
        raise InputError(
            "this is no compression plan",
            found=f"schema version {version!r}, keys {sorted(plan)[:12]}",
            wanted=f"schema version {PLAN_VERSION} with 'structure' and 'formats'",
            remedy="Edit a plan.json that an earlier run has written.",
        )
    formats = plan["formats"]
    if not isinstance(formats, dict) or not all(isinstance(v, str) for v in formats.values()):
        raise InputError("formats of a plan", found=formats, wanted="an object: node -> format")
    cut = plan.get("structure")
    try:
        structure = Structure(**cut) if cut else None
    except TypeError as error:
        raise InputError(
            "structure of a plan",
            found=str(error),
            wanted="null, or method, ratio, norm, round_to, recovery_epochs",
        ) from error
    return Treatment(structure, {str(node): wanted for node, wanted in formats.items()})
