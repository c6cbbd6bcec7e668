"""How a plot becomes inline SVG that takes its colours from the page; knows no figures."""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn in these, then renamed: the page decides what they are by day and by night.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--grid)",
    "#040404": "var(--accent)",
    "#050505": "var(--bar)",
    "#060606": "var(--card)",
    "#070707": "var(--bad)",
}
INK, MUTED, GRID, ACCENT, BAR, CARD, BAD = _COLOURS
_WIDTH_IN = 5.0


@dataclass(frozen=True)
class Chart:
    """A plot: its title, the sentences below, the SVG element, and whether it takes the page's whole width."""

    title: str
    note: str
    svg: str
    wide: bool = False


@contextmanager
def settings() -> Iterator[None]:
    """Draw in here: text stays text, names are no formulas, ids depend on nothing but the content.

    Raises:
        ImportError: matplotlib isn't there.
    """
    import matplotlib

    choices: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "text.parse_math": False,
        "font.size": 9.5,
    }
    with matplotlib.rc_context(choices):
        yield


def new_figure(height_in: float, width_in: float = _WIDTH_IN) -> tuple[Figure, Axes]:
    """Return a figure with one plot, without a frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.subplots()
    axes.set_frame_on(False)
    axes.tick_params(length=0, colors=MUTED)
    return figure, axes


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Put names at the rows 0, 1, …, the first on top."""
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_yticks(range(len(names)), names, color=MUTED)


def to_svg(figure: Figure, told: str) -> str:
    """Return the SVG element; `told` is what a screen reader says of it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # several plots share a page; groups need no names
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)  # the page sets the width
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(told)}"', 1)
    for drawn, named in _COLOURS.items():
        svg = svg.replace(drawn, named)
    return re.sub(r"\n\s*", "\n", svg)
