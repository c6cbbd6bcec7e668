"""The plot of a plan's candidates: what each weighs or takes against what it loses; judges none of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.reporting import wording
from airflow_model_deploy.engine.reporting.drawing import (
    ACCENT,
    BAD,
    BAR,
    CARD,
    GRID,
    INK,
    MUTED,
    Chart,
    new_figure,
    to_svg,
)
from airflow_model_deploy.engine.reporting.placing import place_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

Cost = Literal["size_bytes", "latency_ms"]
_BEYOND = 3.0  # a loss over this many times the limit is drawn at the edge, or it would flatten all others
_LOG_FROM = 8.0  # costs that are further apart than this need a log axis


@dataclass(frozen=True)
class _Axis:
    """One of the two: the candidate's key, its limit in the budget, and how its figures are told."""

    key: str
    limit: float | None
    words: str
    tell: Callable[[float], str]


def draw_tradeoffs(plan: dict[str, Any]) -> tuple[Chart, ...]:
    """Draw the candidates' sizes and latencies, each against what they lose; nothing with less than two."""
    loss = _loss(plan)
    costs = (
        (_Axis("size_bytes", plan["budget"]["max_size_bytes"], "size", wording.size), "Size and loss"),
        (
            _Axis("latency_ms", plan["budget"]["max_latency_ms"], "latency", wording.milliseconds),
            "Latency and loss",
        ),
    )
    charts = (_tradeoff(plan["candidates"], cost, loss, title) for cost, title in costs)
    return tuple(chart for chart in charts if chart is not None)


def _loss(plan: dict[str, Any]) -> _Axis:
    """The quality lost where most candidates have it measured, else the loss of the planning set."""
    known = {
        key: sum(candidate[key] is not None for candidate in plan["candidates"]) for key in ("drop", "loss")
    }
    if known["drop"] >= known["loss"]:
        metric = plan["metric"]
        words = f"{wording.words(metric)} lost" + (" (points)" if wording.counts_points(metric) else "")
        return _Axis("drop", plan["budget"]["max_drop"], words, lambda value: wording.drop(value, metric))
    return _Axis("loss", None, plan["loss_name"], lambda value: wording.number(float(value)))


def _tradeoff(candidates: Sequence[dict[str, Any]], cost: _Axis, loss: _Axis, title: str) -> Chart | None:
    rows = [c for c in candidates if c[cost.key] is not None and c[loss.key] is not None]
    if len(rows) < 2:
        return None
    figure, axes = new_figure(3.3)
    top = _scale_losses(axes, [row[loss.key] for row in rows], loss.limit)
    _scale_costs(axes, [*(row[cost.key] for row in rows), *([cost.limit] if cost.limit else [])], cost)
    axes.set_title(f"↓ {loss.words}", loc="left", fontsize=9, color=MUTED)
    axes.set_xlabel(f"← {cost.words}", loc="left", fontsize=9, color=MUTED)
    _front(axes, rows, cost.key, loss.key, top)
    points = [(row[cost.key], min(row[loss.key], top)) for row in rows]
    for row, point in zip(rows, points, strict=True):
        _point(axes, row, point, beyond=row[loss.key] > top)
    figure.draw_without_rendering()  # the layout decides where labels have room
    labels = [f"{row['number']} chosen" if row["chosen"] else str(row["number"]) for row in rows]
    place_labels(axes, points, labels, [INK if row["chosen"] else MUTED for row in rows])
    _limits(axes, cost, loss)
    told = "; ".join(_told(row, cost, loss) for row in rows)
    return Chart(title, _note(candidates, rows, cost, loss, top), to_svg(figure, f"{title}: {told}"))


def _scale_losses(axes: Axes, values: Sequence[float], limit: float | None) -> float:
    """Return the highest loss that is drawn where it is."""
    low, high = min(0.0, *values), max(values)
    if limit and limit > 0:
        high = min(max(high, limit * 1.15), limit * _BEYOND)
    pad = 0.07 * ((high - low) or 1.0)
    axes.set_ylim(low - pad, high + pad)
    axes.yaxis.set_major_locator(_few_ticks())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return high


def _scale_costs(axes: Axes, values: Sequence[float], cost: _Axis) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOG_FROM:
        axes.set_xscale("log")
        pad = (high / low) ** 0.08
        axes.set_xlim(low / pad, high * pad * pad)
        axes.xaxis.set_major_locator(FixedLocator(_round_numbers(low / pad, high * pad * pad)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        span = (high - low) or abs(high) or 1.0
        axes.set_xlim(max(low - 0.08 * span, 0.0), high + 0.18 * span)
        axes.xaxis.set_major_locator(_few_ticks())
    axes.xaxis.set_major_formatter(lambda value, _: cost.tell(value))


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _round_numbers(low: float, high: float) -> list[float]:
    """At most five of 1, 2, 5, 10, … in a range."""
    first = math.floor(math.log10(low))
    found = [
        digit * 10.0**power
        for power in range(first, math.ceil(math.log10(high)) + 1)
        for digit in (1, 2, 5)
        if low <= digit * 10.0**power <= high
    ]
    return found[:: math.ceil(len(found) / 5)]


def _front(axes: Axes, rows: Sequence[dict[str, Any]], cost: str, loss: str, top: float) -> None:
    """Join those that no other beats in both."""
    ordered = sorted(rows, key=lambda row: (row[cost], row[loss]))
    best = list(accumulate((row[loss] for row in ordered), min))
    front = [row for place, row in enumerate(ordered) if place == 0 or row[loss] < best[place - 1]]
    axes.plot(
        [row[cost] for row in front], [min(row[loss], top) for row in front],
        color=BAR, linewidth=1.4, drawstyle="steps-post", zorder=1.5,
    )  # fmt: skip


def _point(axes: Axes, row: dict[str, Any], point: tuple[float, float], *, beyond: bool) -> None:
    """Shapes tell what colours tell."""
    if row["chosen"]:
        axes.scatter(*point, s=130, marker="D", color=ACCENT, edgecolor=CARD, linewidth=1.2, zorder=4)
    elif beyond:
        axes.scatter(*point, s=44, marker="^", facecolor="none", edgecolor=BAD, linewidth=1.3, zorder=3)
    elif row["within_budget"] is False:
        axes.scatter(*point, s=42, marker="x", color=BAD, linewidth=1.8, zorder=3)
    else:
        axes.scatter(*point, s=46, marker="o", color=BAR, edgecolor=INK, linewidth=1.0, zorder=3)


def _limits(axes: Axes, cost: _Axis, loss: _Axis) -> None:
    """The budget, as lines with their words."""
    line: Any = {"color": INK, "linewidth": 1.1, "linestyle": (0, (4, 3)), "zorder": 2}
    if loss.limit is not None:
        axes.axhline(loss.limit, **line)
        axes.annotate(
            f"budget: {loss.tell(loss.limit)}", (1, loss.limit), (0, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", fontsize=8.5, color=INK,
        )  # fmt: skip
    if cost.limit is not None:
        axes.axvline(cost.limit, **line)
        axes.annotate(
            f"budget: {cost.tell(cost.limit)}", (cost.limit, 0.88), (-4, -4), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right", va="top", rotation=90, fontsize=8.5, color=INK,
        )  # fmt: skip


def _note(
    candidates: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], cost: _Axis, loss: _Axis, top: float
) -> str:
    shapes = ["◆ chosen"] if any(row["chosen"] for row in rows) else []
    shown = [row for row in rows if not row["chosen"]]
    beyond = sum(row[loss.key] > top for row in shown)
    if any(row["within_budget"] is not False and row[loss.key] <= top for row in shown):
        shapes.append("● within the budget")
    if any(row["within_budget"] is False and row[loss.key] <= top for row in shown):
        shapes.append("✕ outside")
    if beyond:
        shapes.append(f"△ loses more than the axis shows ({beyond})")
    missing = len(candidates) - len(rows)
    return (
        f"Nearer to the lower left is better: less {cost.words}, less lost. "
        f"{', '.join(shapes)}. The line joins those that no other beats in both; numbers are those of the table."
        + (f" Not measured, so not drawn: {missing}." if missing else "")
    )


def _told(row: dict[str, Any], cost: _Axis, loss: _Axis) -> str:
    state = {None: "", True: ", within the budget", False: ", outside the budget"}[row["within_budget"]]
    chosen = ", chosen" if row["chosen"] else ""
    return f"{row['name']} {cost.tell(row[cost.key])}, lost {loss.tell(row[loss.key])}{state}{chosen}"
