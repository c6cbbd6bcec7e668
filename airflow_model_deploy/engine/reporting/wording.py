"""Figures as people read them; knows units, no report."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")
_NOTHING = "–"
_MINUTE_S = 60


def size(value: float | None) -> str:
    """Bytes in powers of 1000: "4.21 MB"."""
    if value is None:
        return _NOTHING
    scaled, unit = float(value), 0
    while abs(scaled) >= 999.5 and unit < len(_UNITS) - 1:  # what would be written as 1000
        scaled, unit = scaled / 1000, unit + 1
    return f"{scaled:.3g} {_UNITS[unit]}"


def milliseconds(value: float | None) -> str:
    """Milliseconds, in three digits: "0.412 ms"."""
    return _NOTHING if value is None else f"{_three(value)} ms"


def seconds(value: float | None) -> str:
    """Seconds, from a minute on as "2 min 05 s"."""
    if value is None:
        return _NOTHING
    if value >= _MINUTE_S:
        minutes, rest = divmod(round(value), _MINUTE_S)
        return f"{minutes} min {rest:02} s"
    return f"{_three(value)} s"


def percent(value: float | None) -> str:
    """A share as a percentage with two digits: "97.31 %"."""
    return _NOTHING if value is None else f"{value * 100:.2f} %"


def rate(value: float | None) -> str:
    """Requests a second: "2 310 /s"."""
    if value is None:
        return _NOTHING
    return f"{value:,.0f} /s".replace(",", "\N{NARROW NO-BREAK SPACE}") if value >= 100 else f"{value:.3g} /s"


def number(value: object) -> str:
    """Any figure in at most four digits; text as it is."""
    if value is None:
        return _NOTHING
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def digest(value: str | None) -> str:
    """The first 12 hex digits of a digest."""
    return _NOTHING if not value else value.removeprefix("sha256:")[:12]


def factor(value: float | None, better: str, worse: str) -> tuple[str, str]:
    """A ratio before / after as figure and words: ("3.94×", "smaller"); under 1 turned round with `worse`."""
    if not value or value <= 0:
        return _NOTHING, better
    turned, word = (value, better) if value >= 1 else (1 / value, worse)
    return f"{_three(turned)}×", word


def points(value: float | None) -> tuple[str, str]:
    """Percentage points of accuracy lost: ("0.31", "points of accuracy lost"); below 0 they are gained."""
    if value is None:
        return _NOTHING, "points of accuracy lost"
    return f"{abs(value):.2f}", "points of accuracy " + ("gained" if value < 0 else "lost")


def _three(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
