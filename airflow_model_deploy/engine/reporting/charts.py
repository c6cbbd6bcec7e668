"""The plots of what each stage did; knows stages, no page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.reporting import sentences, wording
from airflow_model_deploy.engine.reporting.drawing import (
    ACCENT,
    BAR,
    GRID,
    INK,
    MUTED,
    Chart,
    name_rows,
    new_figure,
    settings,
    to_svg,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    Stages = Sequence[dict[str, Any]]

_ROW_IN = 0.36


def draw_stages(report: dict[str, Any]) -> tuple[Chart, ...]:
    """Draw what the stages have figures for.

    Raises:
        ImportError: matplotlib isn't there.
    """
    with settings():
        stages = report["stages"]
        charts = (
            _size(stages),
            _latency(stages, "model", "Latency of the model"),
            _latency(stages, "request", "Latency of a request"),
            _throughput(report["compression"]),
            _quality(stages, report["metric"]),
            _time(stages),
        )
    return tuple(chart for chart in charts if chart is not None)


def _size(stages: Stages) -> Chart | None:
    # An image has a whole system below the model: beside it, no other bar would be seen.
    rows = [row for row in _with(stages, "size_bytes") if row["size_of"] != "image"]
    if not rows:
        return None
    texts = [
        wording.size(row["size_bytes"]) + (" with its server" if row["size_of"] == "release" else "")
        for row in rows
    ]
    models = [place for place, row in enumerate(rows) if row["size_of"] == "model"]
    zipped = {place: row["compressed_bytes"] for place, row in enumerate(rows) if row["compressed_bytes"]}
    for place, size in zipped.items():
        texts[place] += f", {wording.size(size)} zipped"
    room = 1.95 if zipped else 1.36 if len(models) == len(rows) else 1.7
    return _bars(
        "Size",
        sentences.of_sizes(rows),
        rows,
        [row["size_bytes"] for row in rows],
        texts,
        highlight=models[-1] if models else None,
        inner=zipped,
        room=room,
    )


def _quality(stages: Stages, metric: dict[str, Any] | None) -> Chart | None:
    rows = [s for s in _with(stages, "quality") if metric and s["metric"] == metric["name"]]
    if metric is None or not rows:
        return None
    name, values, places = metric["name"], [row["quality"] for row in rows], range(len(rows))
    ends = [end for row in rows for end in row["quality_ci"] or ()]
    low, high = min([*values, *ends]), max([*values, *ends])
    span = max(high - low, 0.002 * max(1.0, abs(high)))
    left, right = low - 0.12 * span, high + 0.12 * span
    figure, axes = new_figure(_height(len(rows)))
    axes.set_xlim(
        left, right + 0.4 * span
    )  # room for a column of labels: beside its dot, one would hit the line
    axes.hlines(places, left, right, colors=GRID, linewidth=1)
    axes.plot(values, places, color=BAR, linewidth=1.6, zorder=2)
    for place, row in enumerate(rows):
        if row["quality_ci"]:
            axes.plot(row["quality_ci"], (place, place), color=MUTED, linewidth=3, alpha=0.55, zorder=2)
    axes.scatter(values, places, s=46, color=[BAR] * (len(rows) - 1) + [ACCENT], zorder=3)
    texts = [wording.quality(value, name) for value in values]
    for place, text in enumerate(texts):
        _label(axes, right, place, text, offset=7)
    name_rows(axes, [row["stage"] for row in rows])
    axes.set_xticks([])
    title = wording.title(wording.words(name))
    note = sentences.of_quality(rows, metric)
    return Chart(title, note, to_svg(figure, _told(title, rows, texts)))


def _latency(stages: Stages, kind: str, title: str) -> Chart | None:
    rows = [stage for stage in _with(stages, "latency_ms") if stage["latency_of"] == kind]
    if not rows:
        return None
    values = [row["latency_ms"] for row in rows]
    texts = [wording.milliseconds(value) for value in values]
    return _bars(title, sentences.of_latency(kind), rows, values, texts, highlight=len(rows) - 1)


def _throughput(compression: dict[str, Any]) -> Chart | None:
    before, after = (compression[when]["throughput_per_s"] for when in ("before", "after"))
    if before is None or after is None:
        return None
    note = "Samples per CPU second at batch 64, one thread, measured in turns: longer is better."
    rows = [{"stage": "fp32 ONNX"}, {"stage": "deployed"}]
    texts = [wording.rate(before), wording.rate(after)]
    return _bars("Throughput", note, rows, [before, after], texts, highlight=1)


def _time(stages: Stages) -> Chart | None:
    rows = _with(stages, "duration_s")
    if not rows:
        return None
    hollow = {place for place, row in enumerate(rows) if row["cached"]}
    values = [row["duration_s"] for row in rows]
    texts = [wording.seconds(value) for value in values]
    return _bars("Time", sentences.of_times(rows), rows, values, texts, hollow=hollow)


def _with(stages: Stages, key: str) -> list[dict[str, Any]]:
    return [stage for stage in stages if stage[key] is not None]


def _bars(
    title: str,
    note: str,
    rows: Stages,
    values: Sequence[float],
    texts: Sequence[str],
    *,
    highlight: int | None = None,
    hollow: set[int] | None = None,
    inner: dict[int, float] | None = None,
    room: float = 1.36,
) -> Chart:
    figure, axes = new_figure(_height(len(rows)))
    axes.set_xlim(0, (max(values) or 1.0) * room)  # the labels stand behind the bars
    for place, (value, text) in enumerate(zip(values, texts, strict=True)):
        colour = ACCENT if place == highlight else BAR
        bar = axes.barh(place, value, height=0.58, color=colour, edgecolor=colour, linewidth=1.2)
        bar[0].set_fill(place not in (hollow or ()))
        if inner and place in inner:
            axes.barh(place + 0.22, inner[place], height=0.14, color=INK)
        _label(axes, value, place, text, offset=5)
    name_rows(axes, [row["stage"] for row in rows])
    axes.set_xticks([])
    return Chart(title, note, to_svg(figure, _told(title, rows, texts)))


def _told(title: str, rows: Stages, texts: Sequence[str]) -> str:
    return f"{title}: " + "; ".join(f"{row['stage']} {text}" for row, text in zip(rows, texts, strict=True))


def _height(rows: int) -> float:
    return _ROW_IN * rows + 0.12


def _label(axes: Axes, value: float, place: int, text: str, *, offset: float) -> None:
    axes.annotate(text, (value, place), (offset, 0), textcoords="offset points", va="center", color=INK)
