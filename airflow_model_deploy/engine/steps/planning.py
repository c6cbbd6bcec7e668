"""Searches for the smallest and fastest form of a model that keeps a budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression import (
    Budget,
    Format,
    LayerSensitivity,
    Objective,
    Treatment,
    activations_of,
    analyse,
    best_upgrade,
    cheapest,
    treatments,
)
from airflow_model_deploy.engine.models import create_session, file_size, onnx_sha256
from airflow_model_deploy.engine.steps.candidates import (
    SERVED,
    Built,
    Float,
    Original,
    build,
    calibration_batch,
    request_ms,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

Pinned = Callable[[str, dict[str, Any], Callable[[], dict[str, Any]]], dict[str, Any]]

_ANALYSIS = 2  # raised when the same layers would be measured otherwise

_TRIES = 6  # candidates built after the first one, to come close to the budget
_REPAIRS = 8
_UNIFORM = ("int8-static", "int8-dynamic")  # built for all layers alike: a plan has to beat them
_NEAR = 0.9  # a plan that uses this share of its budget is near enough


@dataclass(frozen=True)
class Search:
    """What is searched, and where.

    Args:
        budget: what has to be kept.
        objective: what is made small.
        formats: formats that may be used; None: what suits the model.
        folder: for the candidates' files.
        pinned: `StepContext.pinned`: keeps the measurement of the layers, which other budgets share.
    """

    budget: Budget
    objective: Objective
    formats: tuple[Format, ...] | None
    folder: Path
    pinned: Pinned

    def score(self, built: Built) -> tuple[bool, float]:
        """Order candidates: those within the budget first, then by cost."""
        return bool(built.broken), built.verified.cost(self.objective)

    def bounds(self, graph: Float) -> bool:
        """Whether the budget bounds the loss itself."""
        return graph.original.by_cosine and self.budget.max_drop is not None

    def room(self, graph: Float) -> float:
        """What the budget leaves for the formats, as a loss, where it bounds that; the structure may have used some."""
        used = graph.original.drop(graph.original.quality_of(graph.test_answers)) or 0.0
        return ((self.budget.max_drop or 0.0) - used) / 100

    def file(self) -> Path:
        """A new file."""
        return self.folder / f"candidate-{len(list(self.folder.glob('candidate-*.onnx')))}.onnx"


@dataclass(frozen=True)
class Found:
    """What a search of formats found: all candidates, and the layers' sensitivity."""

    built: tuple[Built, ...]
    layers: tuple[LayerSensitivity, ...]


def search_formats(graph: Float, search: Search) -> Found:
    """Measure every layer in every format, plan within the budget, build, verify, and come closer or repair.

    The plan is the least cost whose losses add up to at most a bound. Where the budget is in the loss's own unit
    (cosine) the bound is what the budget leaves; else the first plan is the cheapest of all, and the bound is
    halved until the quality holds. A verified loss that differs from the prediction corrects the bound.
    """
    offered = treatments(graph.path, search.formats)
    batch = calibration_batch(graph.path)
    graph.activations.update(activations_of(graph.path, offered, graph.original.feed, batch))
    most = search.room(graph) if search.bounds(graph) and _skips(offered) else math.inf
    parts = {
        "analysis": _ANALYSIS,
        "graph": onnx_sha256(graph.path),
        "original": graph.original.digest,
        "loss": graph.original.loss_name,
        "formats": {name: list(formats) for name, formats in offered.items()},
        "most": most if math.isfinite(most) else None,
    }

    def measured() -> dict[str, Any]:
        found = analyse(
            graph.path,
            offered,
            graph.original.feed,
            loss=graph.original.loss,
            calibration=graph.original.feed,
            request=graph.original.request,
            batch_size=batch,
            activations=graph.activations,
            most=most,
        )
        latency, _ = request_ms(graph.original, create_session(graph.path, SERVED))
        return {"latency_ms": latency, "layers": [layer.to_json() for layer in found]}

    known = search.pinned("sensitivity", parts, measured)
    layers = tuple(LayerSensitivity.from_json(layer) for layer in known["layers"])
    planner = _Planner(graph, search, layers, known["latency_ms"])
    planner.run()
    return Found(tuple(planner.built), layers)


def _skips(offered: Mapping[str, Sequence[Format]]) -> bool:
    """Whether the analysis may leave out a format because of the budget."""
    return any("int4-weight" in formats for formats in offered.values())


class _Planner:
    """The loop over plans for one graph."""

    def __init__(
        self, graph: Float, search: Search, layers: Sequence[LayerSensitivity], latency_ms: float
    ) -> None:
        self.graph, self.search, self.layers = graph, search, layers
        self.built: list[Built] = []
        self.losses = [layer.losses for layer in layers]
        self.plain = latency_ms, file_size(graph.path)
        self.costs = [self._costs(layer, search.objective) for layer in layers]
        self._seen: dict[tuple[str, ...], Built] = {}

    def run(self) -> None:
        """Leave every candidate in `built`.

        Where the plan that serves the objective best is too large or too slow, those that serve the size or the
        latency best are tried as well.
        """
        for wanted in _UNIFORM:
            if sum(wanted in one for one in self.losses) > len(self.losses) / 2:
                self.build([wanted if wanted in one else "fp32" for one in self.losses])
        self._plan()
        budget = self.search.budget
        limits: dict[Objective, float | None] = {
            "size": budget.max_size_bytes,
            "latency": budget.max_latency_ms,
        }
        for objective, limit in limits.items():
            if limit is not None and objective != self.search.objective and self._all_broken():
                self.costs = [self._costs(layer, objective) for layer in self.layers]
                self._plan()
        if self._all_broken() and (
            worse := [one for one in self.built if budget.loses_too_much(one.verified)]
        ):
            self.repair(self.chosen_of(min(worse, key=lambda one: one.verified.loss)))

    def _all_broken(self) -> bool:
        return all(one.broken for one in self.built)

    def _plan(self) -> None:
        """Build the cheapest plan within a bound on the loss, and move the bound until it is the budget's."""
        bound = self.search.room(self.graph) if self.search.bounds(self.graph) else math.inf
        if bound <= 0:
            self.build(["fp32"] * len(self.layers))
            return
        tightest, loosest = 0.0, math.inf  # bounds known to keep the budget, and to exceed it
        for _ in range(1 + _TRIES):
            chosen = cheapest(self.losses, self.costs, bound)
            if chosen is None:
                break
            built, new = self.build(chosen)
            if built.broken:
                loosest = min(loosest, bound, self.predicted_loss(chosen))
            else:
                tightest = max(tightest, bound)
                if bound == math.inf:
                    return
            following = self._next_bound(bound, built, tightest, loosest)
            if following is None or (not new and not built.broken):
                break
            bound = following

    def _next_bound(self, bound: float, built: Built, tightest: float, loosest: float) -> float | None:
        """The bound to try next; None where it is near enough."""
        if self.search.bounds(self.graph):
            room, found = self.search.room(self.graph), max(built.verified.loss_held_out or 0.0, 1e-12)
            if not built.broken and found >= _NEAR * room:
                return None
            return bound * min(2.0, max(0.5, 0.97 * room / found))
        if math.isinf(bound):
            return self.predicted_loss(self.chosen_of(built)) / 2
        if tightest == 0.0:
            return bound / 2
        return None if tightest >= 0.8 * loosest else (tightest + loosest) / 2

    def repair(self, chosen: list[str]) -> None:
        """Give the layer back its precision where that takes away most loss for its cost, until the budget holds."""
        for turn in range(_REPAIRS):
            built, _ = self.build(chosen)
            if not built.broken:
                return
            for _ in range(1 + turn):  # in growing strides: many layers may have to change
                upgrade = best_upgrade(chosen, self.losses, self.costs)
                if upgrade is None:
                    return
                chosen = [*chosen[: upgrade[0]], upgrade[1], *chosen[upgrade[0] + 1 :]]
        self.build(["fp32"] * len(self.layers))

    def build(self, chosen: Sequence[str]) -> tuple[Built, bool]:
        """Build a plan, once; returns it and whether it is new."""
        key = tuple(chosen)
        if key in self._seen:
            return self._seen[key], False
        formats: Any = {
            layer.layer: wanted for layer, wanted in zip(self.layers, chosen, strict=True) if wanted != "fp32"
        }
        predicted = {
            "loss": self.predicted_loss(chosen),
            "size_bytes": round(self._predicted(chosen, "bytes", self.plain[1])),
            "latency_ms": self._predicted(chosen, "milliseconds", self.plain[0]),
        }
        built = build(self.graph, formats, self.search.file(), budget=self.search.budget, predicted=predicted)
        self._seen[key] = built
        self.built.append(built)
        return built, True

    def chosen_of(self, built: Built) -> list[str]:
        """The formats of a candidate, layer by layer."""
        return [built.treatment.formats.get(layer.layer, "fp32") for layer in self.layers]

    def predicted_loss(self, chosen: Sequence[str]) -> float:
        """The sum of the layers' losses."""
        return sum(max(0.0, one[wanted]) for one, wanted in zip(self.losses, chosen, strict=True))

    def _predicted(self, chosen: Sequence[str], what: str, plain: float) -> float:
        saved = 0.0
        for layer, wanted in zip(self.layers, chosen, strict=True):
            table = getattr(layer, what)
            saved += table["fp32"] - table[wanted]
        return max(plain - saved, 0.0)

    def _costs(self, layer: LayerSensitivity, objective: Objective) -> dict[str, float]:
        """Share of the float graph's latency and size that a layer takes, by format."""
        latency, size = self.plain
        weights = {"latency": (1.0, 0.05), "size": (0.05, 1.0), "balanced": (1.0, 1.0)}[objective]
        return {
            wanted: weights[0] * layer.milliseconds[wanted] / latency
            + weights[1] * layer.bytes[wanted] / size
            for wanted in layer.losses
        }


def search_ratio(
    ratios: Sequence[float], attempt: Callable[[float], tuple[Float, float | None] | None], budget: Budget
) -> list[Float]:
    """Find the largest ratio whose recovered model keeps the quality, by bisection; returns it and the one below.

    Args:
        ratios: in rising order.
        attempt: prunes and recovers; returns the float graph and its drop; None where so
            little is to go that nothing goes.
        budget: its max_drop decides.
    """
    kept: dict[float, Float] = {}
    low, high = -1, len(ratios)
    while high - low > 1:
        middle = (low + high) // 2
        found = attempt(ratios[middle])
        if found is None:  # too little to cut at this ratio
            low = middle
            continue
        graph, drop = found
        fits = budget.max_drop is None or (drop is not None and drop <= budget.max_drop + 1e-9)
        logger.info("ratio %s: drop %s, %s", ratios[middle], drop, "kept" if fits else "too much")
        if fits:
            kept[ratios[middle]] = graph
            low = middle
        else:
            high = middle
    return [kept[ratio] for ratio in sorted(kept, reverse=True)]


def fp32(original: Original) -> Float:
    """The original graph, untreated."""
    return Float(original.path, Treatment(), original)
