"""The plot of what each layer loses in each format; knows the plan's measurements, no model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.reporting import wording
from airflow_model_deploy.engine.reporting.drawing import (
    ACCENT,
    BAR,
    GRID,
    INK,
    MUTED,
    Chart,
    name_rows,
    new_figure,
    to_svg,
)
from airflow_model_deploy.engine.reporting.plan import KEPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

MOST = 40  # rows that one can still read
_ROW_IN, _WIDTH_IN, _NAME = 0.25, 10.0, 56
# Shape, how it reads in the note; formats not named here take the rest in turn.
_SHAPES = {
    "int8-static": ("o", "○"),
    "int8-dynamic": ("s", "□"),
    "int8-weight": ("^", "△"),
    "int4-weight": ("D", "◇"),
    "int8-smooth": ("p", "⬠"),
    "int8-outlier": ("v", "▽"),
}
_OTHERS = (("*", "☆"), ("h", "⬡"), ("<", "◁"), (">", "▷"))


def draw_sensitivity(plan: dict[str, Any]) -> Chart | None:
    """Draw the losses of the layers, the most sensitive first; None without any."""
    rows = most_sensitive(plan["sensitivity"])
    known = [loss for row in rows for loss in _losses(row).values() if loss > 0]
    if not known:
        return None
    figure, axes = new_figure(_ROW_IN * len(rows) + 0.55, _WIDTH_IN)
    low, high = _decades(known)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    name_rows(axes, [wording.shortened(row["layer"], _NAME) for row in rows])
    _ticks(axes, low, high)
    shapes = _shapes(rows)
    for place, row in enumerate(rows):
        _row(axes, place, row, shapes, low)
        axes.annotate(
            row["chosen"], (1, place), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", color=INK, annotation_clip=False,
        )  # fmt: skip
    told = "; ".join(
        f"{row['layer']}: "
        + ", ".join(f"{name} {wording.number(loss)}" for name, loss in _losses(row).items())
        + f", chosen {row['chosen']}"
        for row in rows
    )
    note = _note(plan, len(rows), shapes, rows, low)
    title = "What each layer is sensitive to"
    return Chart(title, note, to_svg(figure, f"{title}: {told}"), wide=True)


def most_sensitive(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers with losses, the largest first, as many as can be read."""
    measured = [layer for layer in layers if _losses(layer)]
    return sorted(measured, key=lambda layer: -max(_losses(layer).values()))[:MOST]


def _losses(layer: dict[str, Any]) -> dict[str, float]:
    return {name: float(loss) for name, loss in layer["losses"].items() if loss is not None and name != KEPT}


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low, high = 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values)))
    return (low, high * 10) if low == high else (low, high)


def _ticks(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    powers = range(round(math.log10(low)), round(math.log10(high)) + 1)
    step = max(1, math.ceil(len(powers) / 8))
    axes.xaxis.set_major_locator(FixedLocator([10.0**power for power in powers[::step]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: wording.power_of_ten(value))
    axes.xaxis.tick_top()  # a long chart is read from its top
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _shapes(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys(name for row in rows for name in _losses(row))
    spare = [name for name in names if name not in _SHAPES]
    known = {name: shape for name, shape in _SHAPES.items() if name in names}
    return known | {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(spare)}


def _row(axes: Axes, place: int, row: dict[str, Any], shapes: dict[str, tuple[str, str]], low: float) -> None:
    for name, loss in _losses(row).items():
        chosen, at = name == row["chosen"], max(loss, low)
        if chosen:
            axes.barh(place, at - low, left=low, height=0.5, color=BAR, alpha=0.6)
        axes.scatter(
            at, place, s=52 if chosen else 30, marker=shapes[name][0], facecolor=ACCENT if chosen else "none",
            edgecolor=ACCENT if chosen else MUTED, linewidth=1.2, zorder=4 if chosen else 3, clip_on=False,
        )  # fmt: skip


def _note(
    plan: dict[str, Any],
    shown: int,
    shapes: dict[str, tuple[str, str]],
    rows: Sequence[dict[str, Any]],
    low: float,
) -> str:
    total = len(plan["sensitivity"])
    legend = ", ".join(f"{sign} {name}" for name, (_, sign) in shapes.items())
    nothing = any(loss < low for row in rows for loss in _losses(row).values())
    return (
        f"What the whole model loses ({plan['loss_name']}; each line to the right is ten times more) when this one "
        f"layer takes a format: {legend}. Filled, with a bar: the plan's choice, named on the right; without one "
        f"the layer stays {KEPT}."
        + (" At the left edge: no loss was measured." if nothing else "")
        + (f" The {shown} most sensitive of {total} layers; the table has all." if shown < total else "")
    )
