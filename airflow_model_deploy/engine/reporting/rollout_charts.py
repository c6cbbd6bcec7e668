"""The plots of a rollout that was not all well: the new revision's failures beside the old one's; knows no page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.reporting import rollout_sentences, wording
from airflow_model_deploy.engine.reporting.drawing import (
    ACCENT,
    BAD,
    BAR,
    GRID,
    INK,
    Chart,
    name_rows,
    new_figure,
    settings,
    to_svg,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROW_IN, _LABEL = 0.3, 0.5  # room for the labels: a part of the axis
_KINDS = (("errors", "error", "Failed requests"), ("slow", "slow", "Slow requests"))


def draw_rollout(rollout: dict[str, Any]) -> tuple[Chart, ...]:
    """Draw the shares of failed and of slow requests; nothing where every phase passed: the table says it all.

    Raises:
        ImportError: matplotlib isn't there.
    """
    phases = rollout["phases"]
    if all(phase["status"] == "pass" for phase in phases):
        return ()
    with settings():
        charts = (_shares(phases, *kind) for kind in _KINDS)
        return tuple(chart for chart in charts if chart is not None)


def _stands_out(phase: dict[str, Any], name: str) -> bool:
    """Whether a failed phase shows it in this share: the interval lies apart from the old revision's."""
    canary, stable = phase["canary"], phase["stable"] or {}
    low, old = canary[f"{name}_interval"][0], stable.get(f"{name}_interval")
    return bool(phase["status"] == "fail" and (low > old[1] if old else low > 0))


def _shares(phases: Sequence[dict[str, Any]], counted: str, name: str, title: str) -> Chart | None:
    rows = [
        (f"{phase['name']}, {who}", track, who == "new" and _stands_out(phase, name), who)
        for phase in phases
        for who, track in (("new", phase["canary"]), ("old", phase["stable"]))
        if track is not None and track[f"{name}_share"] is not None
    ]
    if not any(track[counted] for _, track, _, _ in rows):
        return None
    right = max(track[f"{name}_interval"][1] for _, track, _, _ in rows)
    figure, axes = new_figure(_ROW_IN * len(rows) + 0.12)
    axes.set_xlim(-0.02 * right, right * (1 + _LABEL))
    axes.hlines(range(len(rows)), 0, right, colors=GRID, linewidth=1)
    axes.axvline(0, color=GRID, linewidth=1)
    texts = []
    for place, (_, track, fails, who) in enumerate(rows):
        share, colour = track[f"{name}_share"], BAD if fails else ACCENT if who == "new" else BAR
        axes.plot(track[f"{name}_interval"], (place, place), color=colour, linewidth=3, alpha=0.55, zorder=2)
        axes.scatter([share], [place], s=46, color=colour, zorder=3)
        texts.append(f"{wording.percent(share)} ({wording.count(track[counted])})")
        axes.annotate(texts[-1], (right, place), (7, 0), textcoords="offset points", va="center", color=INK)
    name_rows(axes, [row for row, _, _, _ in rows])
    axes.set_xticks([])
    told = "; ".join(f"{row} {text}" for (row, _, _, _), text in zip(rows, texts, strict=True))
    return Chart(title, rollout_sentences.of_shares(counted), to_svg(figure, f"{title}: {told}"))
