"""Decides whether measurements are good enough; takes none."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation.metrics import drop_of, higher_is_better, in_points

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GateKind = Literal[
    "max_drop", "min_value", "max_value", "max_latency_ms", "max_size_bytes", "max_compressed_bytes",
    "min_size_ratio", "min_speedup", "max_memory_bytes",
]  # fmt: skip

_OF_METRIC = ("max_drop", "min_value", "max_value")
# What a gate without a metric reads, and how it is told.
_READS = {
    "max_latency_ms": ("latency_ms", "latency", "ms"),
    "max_size_bytes": ("size_bytes", "size", "bytes"),
    "max_compressed_bytes": ("compressed_bytes", "compressed size", "bytes"),
    "min_size_ratio": ("size_ratio", "size of the original / size", "x"),
    "min_speedup": ("speedup", "speed-up", "x"),
    "max_memory_bytes": ("memory_bytes", "peak memory", "bytes"),
}


@dataclass(frozen=True)
class Gate:
    """One condition that a model must meet.

    Args:
        kind: max_drop: the metric may be at most `limit` worse than "<against>.<metric>"; a share (accuracy,
            top5, cosine, agreement, retrieval) in percentage points, other metrics in their own unit. min_value,
            max_value: of the metric. The other kinds read latency_ms, size_bytes, compressed_bytes, size_ratio,
            speedup and memory_bytes.
        limit: the last value that passes.
        metric: for max_drop, min_value and max_value: its name.
        higher_is_better: of the metric; matters to max_drop. By default as its name says; of others, true.
        against: whose metric max_drop compares with: "baseline", the model before compression, or "champion", the
            one that serves now.
        confident: a gate on a metric must hold at the worse end of the 95 % interval, not just for the figure
            that the test samples gave.
    """

    kind: GateKind
    limit: float
    metric: str | None = None
    higher_is_better: bool | None = None
    against: Literal["baseline", "champion"] = "baseline"
    confident: bool = False

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
    """A gate's verdict; `found` is None where the measurement is missing, `interval` where there is none."""

    name: str
    found: float | None
    wanted: float
    passed: bool
    sentence: str
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values; what is not finite is null."""
        found = self.found if self.found is not None and math.isfinite(self.found) else None
        return {**asdict(self), "found": found, "interval": list(self.interval) if self.interval else None}


def check_gates(
    gates: Iterable[Gate],
    measured: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float] | None] | None = None,
    *,
    samples: int | None = None,
) -> tuple[GateResult, ...]:
    """Judge every gate; a missing measurement or a NaN never passes.

    Args:
        gates: in the order of the report.
        measured: metrics by name, "baseline.<metric>", "champion.<metric>", latency_ms, size_bytes,
            compressed_bytes, size_ratio, speedup, memory_bytes.
        intervals: 95 % intervals: of a metric by its name, of the drop from the baseline or the champion by
            "baseline.<metric>" and "champion.<metric>", in the unit that the gate's limit has.
        samples: how many the metrics were measured on.
    """
    return tuple(_check(gate, measured, intervals or {}, samples) for gate in gates)


def _check(
    gate: Gate,
    measured: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float] | None],
    samples: int | None,
) -> GateResult:
    found, missing, label, unit = _found(gate, measured)
    if found is None:
        sentence = f"{gate.name} failed: {missing} was not measured"
        return GateResult(gate.name, None, gate.limit, False, sentence)
    interval = intervals.get(_interval_key(gate)) if gate.metric else None
    at_least = gate.kind.startswith("min_")
    judged = found
    if gate.metric and gate.confident:
        if interval is None:
            sentence = f"{gate.name} failed: no 95 % interval of {gate.metric} is known, and the gate wants its bound"
            return GateResult(gate.name, found, gate.limit, False, sentence)
        judged = interval[0] if at_least else interval[1]
    # Decimal limits must hold at the boundary: 0.95 - 0.94 is 0.010000000000000009.
    slack = 1e-9 * max(1.0, abs(gate.limit))
    passed = judged >= gate.limit - slack if at_least else judged <= gate.limit + slack
    bound = "at least" if at_least else "at most"
    verdict = "passed" if passed else "failed"
    digits = next((n for n in (4, 6, 9) if passed or _number(judged, n) != _number(gate.limit, n)), 12)
    wanted = f"{bound} {_number(gate.limit, digits)}{unit}"
    if gate.metric and gate.confident:
        wanted += f" at the {'lower' if at_least else 'upper'} bound"
    told = f"{_number(found, digits)}{unit}{_told(interval, samples)}"
    sentence = f"{gate.name} {verdict}: {label} is {told}, wanted {wanted}"
    return GateResult(gate.name, found, gate.limit, passed, sentence, interval)


def _interval_key(gate: Gate) -> str:
    return f"{gate.against}.{gate.metric}" if gate.kind == "max_drop" else str(gate.metric)


def _told(interval: tuple[float, float] | None, samples: int | None) -> str:
    """As in "0.4 points (95 % interval -0.2 to 1, 500 samples)"."""
    if interval is None:
        return ""
    low, high = (f"{value:.4g}" for value in interval)
    return f" (95 % interval {low} to {high}{f', {samples} samples' if samples else ''})"


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
    higher = higher_is_better(gate.metric) if gate.higher_is_better is None else gate.higher_is_better
    drop = drop_of(gate.metric, value, baseline, higher_is_better=higher)
    label = f"loss of {gate.metric}, from {_number(baseline)} to {_number(value)},"
    return drop, key, label, " points" if in_points(gate.metric) else ""


def _number(value: float, digits: int = 4) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.{digits}g}"
