"""Decides whether measurements are good enough; takes none."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GateKind = Literal[
    "max_drop", "min_value", "max_value", "max_latency_ms", "max_size_bytes", "min_size_ratio", "min_speedup",
    "max_memory_bytes",
]  # fmt: skip

_OF_METRIC = ("max_drop", "min_value", "max_value")
# What a gate without a metric reads, and how it is told.
_READS = {
    "max_latency_ms": ("latency_ms", "latency", "ms"),
    "max_size_bytes": ("size_bytes", "size", "bytes"),
    "min_size_ratio": ("size_ratio", "size of the original / size", "x"),
    "min_speedup": ("speedup", "speed-up", "x"),
    "max_memory_bytes": ("memory_bytes", "peak memory", "bytes"),
}


@dataclass(frozen=True)
class Gate:
    """One condition that a model must meet.

    Args:
        kind: max_drop: the metric may be at most `limit` worse than "<against>.<metric>"; accuracy in
            percentage points, other metrics in their own unit. min_value, max_value: of the metric. The other
            kinds read latency_ms, size_bytes, size_ratio, speedup and memory_bytes.
        limit: the last value that passes.
        metric: for max_drop, min_value and max_value: its name.
        higher_is_better: of the metric; matters to max_drop. By default false for mae and rmse, else true.
        against: whose metric max_drop compares with: "baseline", the model before compression, or "champion", the
            one that serves now.
    """

    kind: GateKind
    limit: float
    metric: str | None = None
    higher_is_better: bool | None = None
    against: Literal["baseline", "champion"] = "baseline"

    def __post_init__(self) -> None:
        if self.kind not in get_args(GateKind):
            raise InputError("gate", found=self.kind, wanted=" | ".join(get_args(GateKind)))
        if not math.isfinite(self.limit):
            raise InputError(f"limit of gate {self.kind}", found=self.limit, wanted="a finite number")
        if (self.kind in _OF_METRIC) != (self.metric is not None):
            wanted = "the name of a metric" if self.kind in _OF_METRIC else "no metric"
            raise InputError(f"metric of gate {self.kind}", found=self.metric, wanted=wanted)

    @property
    def name(self) -> str:
        """As reports call it: "max_drop(accuracy)", "max_drop_from_champion(accuracy)"."""
        kind = self.kind if self.against == "baseline" else f"{self.kind}_from_{self.against}"
        return f"{kind}({self.metric})" if self.metric else kind

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Gate:
        """The inverse of `to_json`."""
        return cls(**value)


@dataclass(frozen=True)
class GateResult:
    """A gate's verdict; `found` is None where the measurement is missing."""

    name: str
    found: float | None
    wanted: float
    passed: bool
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values; what is not finite is null."""
        found = self.found if self.found is not None and math.isfinite(self.found) else None
        return {**asdict(self), "found": found}


def check_gates(gates: Iterable[Gate], measured: Mapping[str, float | None]) -> tuple[GateResult, ...]:
    """Judge every gate; a missing measurement or a NaN never passes.

    Args:
        gates: in the order of the report.
        measured: metrics by name, "baseline.<metric>", "champion.<metric>", latency_ms, size_bytes,
            size_ratio, speedup, memory_bytes.
    """
    return tuple(_check(gate, measured) for gate in gates)


def _check(gate: Gate, measured: Mapping[str, float | None]) -> GateResult:
    found, missing, label, unit = _found(gate, measured)
    if found is None:
        sentence = f"{gate.name} failed: {missing} was not measured"
        return GateResult(gate.name, None, gate.limit, False, sentence)
    # Decimal limits must hold at the boundary: 0.95 - 0.94 is 0.010000000000000009.
    slack = 1e-9 * max(1.0, abs(gate.limit))
    at_least = gate.kind.startswith("min_")
    passed = found >= gate.limit - slack if at_least else found <= gate.limit + slack
    bound = "at least" if at_least else "at most"
    verdict = "passed" if passed else "failed"
    wanted = f"{bound} {_number(gate.limit)}{unit}"
    sentence = f"{gate.name} {verdict}: {label} is {_number(found)}{unit}, wanted {wanted}"
    return GateResult(gate.name, found, gate.limit, passed, sentence)


def _found(gate: Gate, measured: Mapping[str, float | None]) -> tuple[float | None, str, str, str]:
    """(value, what is missing, label, unit)."""
    if gate.metric is None:
        key, label, unit = _READS[gate.kind]
        return measured.get(key), key, label, f" {unit}"
    value = measured.get(gate.metric)
    if gate.kind != "max_drop":
        return value, gate.metric, gate.metric, ""
    key = f"{gate.against}.{gate.metric}"
    baseline = measured.get(key)
    if value is None or baseline is None:
        return None, gate.metric if value is None else key, gate.metric, ""
    kind = gate.metric.partition(":")[0]
    higher = kind not in ("mae", "rmse") if gate.higher_is_better is None else gate.higher_is_better
    drop = baseline - value if higher else value - baseline
    label = f"loss of {gate.metric}, from {_number(baseline)} to {_number(value)},"
    return (drop * 100, key, label, " points") if kind == "accuracy" else (drop, key, label, "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
