"""Finds room for labels beside points; knows neither what they mean nor the page."""

from __future__ import annotations

from math import hypot
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    Box = tuple[float, float, float, float]  # left, bottom, right, top, in points

# Where a label may stand: direction and distance in points, the best first.
_PLACES = tuple(
    (dx * distance, dy * distance)
    for distance in (1.0, 1.9, 2.9)
    for dx, dy in ((7, 6), (0, 10), (0, -10), (7, -6), (-7, 6), (-7, -6), (10, 0), (-10, 0))
)
_WIDTH, _HEIGHT, _POINT = 5.4, 8.5, 4.5  # of a letter of 8.5 points, and half of a marker
_FONT = 8.5
_CONFUSING = 40.0
_APART = 3.0  # two numbers side by side are not to be read as one


def place_labels(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], colours: Sequence[str]
) -> None:
    """Write a text beside each point, so that texts and points don't cover each other where there is room.

    The figure's layout must be done.
    """
    scale = 72 / axes.figure.dpi
    drawn = [axes.transData.transform(point) for point in points]
    centres = [(float(x) * scale, float(y) * scale) for x, y in drawn]
    frame = axes.get_window_extent().bounds
    inside = (
        frame[0] * scale,
        frame[1] * scale,
        (frame[0] + frame[2]) * scale,
        (frame[1] + frame[3]) * scale,
    )
    taken: list[Box] = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in centres]
    for point, (x, y), text, colour in zip(points, centres, texts, colours, strict=True):
        boxes = [_box(x, y, offset, text) for offset in _PLACES]
        costs = [
            sum(_overlap(box, other) for other in taken)
            + 3 * _outside(box, inside)
            + _CONFUSING * sum(_nearer(box, other, (x, y)) for other in centres)
            for box in boxes
        ]
        best = costs.index(min(costs))
        left, bottom, right, top = boxes[best]
        taken.append((left - _APART, bottom, right + _APART, top))
        (dx, dy) = _PLACES[best]
        axes.annotate(
            text, point, (dx, dy), textcoords="offset points", fontsize=_FONT, color=colour,
            ha="left" if dx > 0 else "right" if dx < 0 else "center", va="center", zorder=5,
        )  # fmt: skip


def _box(x: float, y: float, offset: tuple[float, float], text: str) -> Box:
    width = _WIDTH * len(text)
    left = x + offset[0] - (0 if offset[0] > 0 else width if offset[0] < 0 else width / 2)
    bottom = y + offset[1] - _HEIGHT / 2
    return left, bottom, left + width, bottom + _HEIGHT


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _nearer(box: Box, other: tuple[float, float], own: tuple[float, float]) -> bool:
    """True where a reader would take the label for another point's."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return other != own and hypot(other[0] - x, other[1] - y) < hypot(own[0] - x, own[1] - y) + 2


def _outside(box: Box, frame: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, frame)
