"""The report's plots as inline SVG that takes its colours from the page; knows stages, no page."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.reporting import wording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn in these, then renamed: the page decides what they are by day and by night.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--grid)",
    "#040404": "var(--accent)",
    "#050505": "var(--bar)",
}
_INK, _MUTED, _GRID, _ACCENT, _BAR = _COLOURS
_WIDTH_IN = 5.0
_ROW_IN = 0.36


@dataclass(frozen=True)
class Chart:
    """A plot: its title, one sentence below, and the SVG element."""

    title: str
    note: str
    svg: str


def draw_charts(report: dict[str, Any]) -> tuple[Chart, ...]:
    """Draw what a report has figures for.

    Raises:
        ImportError: matplotlib isn't there.
    """
    import matplotlib

    # Text stays text, names are no formulas, and the ids in the file depend on nothing but the content.
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "text.parse_math": False,
        "font.size": 9.5,
    }
    with matplotlib.rc_context(settings):
        stages = report["stages"]
        charts = (
            _size(stages),
            _accuracy(stages),
            _latency(stages),
            _throughput(report["compression"]),
            _time(stages),
        )
    return tuple(chart for chart in charts if chart is not None)


def _size(stages: Sequence[dict[str, Any]]) -> Chart | None:
    rows = _known(stages, "size_bytes")
    if not rows:
        return None
    figure, axes = _figure(len(rows))
    _bars(axes, rows, wording.size, highlight=len(rows) - 1)
    return Chart("Size", "The stored model after each stage.", _svg(figure))


def _accuracy(stages: Sequence[dict[str, Any]]) -> Chart | None:
    rows = _known(stages, "accuracy")
    if not rows:
        return None
    figure, axes = _figure(len(rows))
    values, places = [value for _, value in rows], range(len(rows))
    span = max(max(values) - min(values), 0.002)
    left, right = min(values) - 0.12 * span, max(values) + 0.12 * span
    axes.set_xlim(
        left, right + 0.4 * span
    )  # room for a column of labels: beside its dot, one would hit the line
    axes.hlines(places, left, right, colors=_GRID, linewidth=1)
    axes.plot(values, places, color=_BAR, linewidth=1.6, zorder=2)
    colours = [_BAR] * (len(rows) - 1) + [_ACCENT]
    axes.scatter(values, places, s=46, color=colours, zorder=3)
    for place, value in zip(places, values, strict=True):
        _label(axes, right, place, wording.percent(value), offset=7)
    _rows(axes, [name for name, _ in rows])
    return Chart("Accuracy", "On held-out data. The axis is zoomed in; it doesn't start at 0.", _svg(figure))


def _latency(stages: Sequence[dict[str, Any]]) -> Chart | None:
    rows = _known(stages, "latency_ms")
    if not rows:
        return None
    figure, axes = _figure(len(rows))
    _bars(axes, rows, wording.milliseconds, highlight=len(rows) - 1)
    note = (
        "Before the test: the model alone, in CPU time. From the test on: a request to its server and back."
    )
    return Chart("Latency", note, _svg(figure))


def _throughput(compression: dict[str, Any]) -> Chart | None:
    before, after = compression["baseline_throughput_per_s"], compression["throughput_per_s"]
    if before is None or after is None:
        return None
    figure, axes = _figure(2)
    _bars(axes, [("fp32 ONNX", before), ("deployed", after)], wording.rate, highlight=1)
    return Chart(
        "Throughput", "Samples per CPU second at batch 64, one thread, measured in turns.", _svg(figure)
    )


def _time(stages: Sequence[dict[str, Any]]) -> Chart | None:
    rows = _known(stages, "duration_s")
    if not rows:
        return None
    cached = {s["stage"] for s in stages if s["cached"]}
    figure, axes = _figure(len(rows))
    _bars(axes, rows, wording.seconds, hollow=cached)
    note = "Wall clock of each stage." + (" Hollow bars came from the cache." if cached else "")
    return Chart("Time", note, _svg(figure))


def _known(stages: Sequence[dict[str, Any]], key: str) -> list[tuple[str, float]]:
    return [(str(s["stage"]), float(s[key])) for s in stages if s[key] is not None]


def _figure(rows: float, panels: tuple[int, ...] = (1,)) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, _ROW_IN * rows + 0.12), layout="constrained")
    return figure, figure.subplots(len(panels), height_ratios=panels)


def _bars(
    axes: Axes,
    rows: Sequence[tuple[str, float]],
    text: Callable[[float], str],
    *,
    highlight: int | None = None,
    hollow: frozenset[str] | set[str] = frozenset(),
) -> None:
    largest = max(value for _, value in rows) or 1.0
    axes.set_xlim(0, largest * 1.36)  # room for the labels
    for place, (name, value) in enumerate(rows):
        colour = _ACCENT if place == highlight else _BAR
        bar = axes.barh(place, value, height=0.58, color=colour, edgecolor=colour, linewidth=1.2)
        if name in hollow:
            bar[0].set_fill(False)
        _label(axes, value, place, text(value), offset=5)
    _rows(axes, [name for name, _ in rows])


def _label(axes: Axes, value: float, place: int, text: str, *, offset: float) -> None:
    axes.annotate(text, (value, place), (offset, 0), textcoords="offset points", va="center", color=_INK)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_ylim(len(names) - 0.45, -0.55)  # the first stage on top
    axes.set_yticks(range(len(names)), names, color=_MUTED)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_frame_on(False)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # several plots share a page; groups need no names
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)  # the page sets the width
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for drawn, named in _COLOURS.items():
        svg = svg.replace(drawn, named)
    return re.sub(r"\n\s*", "\n", svg)
