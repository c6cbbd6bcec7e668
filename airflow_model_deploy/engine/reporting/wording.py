"""Figures as people read them; knows units and kinds of metrics, no report."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from airflow_model_deploy.engine.evaluation import in_points

_UNITS = ("B", "kB", "MB", "GB", "TB")
_NOTHING = "–"
_MINUTE_S = 60
# Not strftime's: those follow the language of the machine.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SPACE = "\N{NARROW NO-BREAK SPACE}"
# Shares by name: "accuracy:logits", "top5", "f1_macro", "my_accuracy".
_SHARE = re.compile(
    r"(^|[^a-z0-9])(acc|accuracy|top[_-]?\d*|f1|precision|recall|exact|agreement|retrieval)([^a-z0-9]|$)"
)
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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


def moment(text: str | None) -> str:
    """A moment in ISO 8601 as a date and a time: "22 Nov 2026, 22:49:43 UTC"; "" where there is none."""
    if not text:
        return ""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = " UTC" if found.utcoffset() == timedelta(0) else f" {text[19:]}" if found.tzinfo else ""
    return f"{found.day} {_MONTHS[found.month - 1]} {found.year}, {found:%H:%M:%S}{zone}"


def percent(value: float | None) -> str:
    """A share as a percentage with two digits: "97.31 %"."""
    return _NOTHING if value is None else f"{value * 100:.2f} %"


def rate(value: float | None) -> str:
    """Requests a second: "2 310 /s"."""
    if value is None:
        return _NOTHING
    return f"{count(round(value))} /s" if value >= 100 else f"{value:.3g} /s"


def count(value: float | None) -> str:
    """A whole number, its thousands apart: "147 456"."""
    return _NOTHING if value is None else f"{value:,.0f}".replace(",", _SPACE)


def number(value: object) -> str:
    """Any figure in at most four digits; text as it is."""
    if value is None:
        return _NOTHING
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < 1e-4:
        digits, _, _ = f"{value:.2e}".partition("e")
        return f"{digits}·{power_of_ten(value)}"
    return count(value) if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def digest(value: str | None) -> str:
    """The first 12 hex digits of a digest."""
    return _NOTHING if not value else value.removeprefix("sha256:")[:12]


def factor(value: float | None, better: str, worse: str) -> tuple[str, str]:
    """A ratio before / after as figure and words: ("3.94×", "smaller"); under 1 turned round with `worse`."""
    if not value or value <= 0:
        return _NOTHING, better
    turned, word = (value, better) if value >= 1 else (1 / value, worse)
    return f"{_three(turned)}×", word


# -- metrics: a share is told in percent, a cosine to four digits, anything else as the number it is -----------


def kind(metric: str | None) -> str:
    """A metric's name without the output that it is taken of: "accuracy:logits" is accuracy."""
    return (metric or "").partition(":")[0]


def words(metric: str | None) -> str:
    """A metric's name in prose: "cosine to reference"."""
    return (metric or "quality").replace("_", " ")


def title(text: str) -> str:
    """Words as the head of a column."""
    return text[:1].upper() + text[1:]


def counts_points(metric: str | None) -> bool:
    """True where losses and limits of a metric are percentage points, as the gates count them."""
    return in_points(metric or "")


def quality(value: float | None, metric: str | None) -> str:
    """A metric's value: "99.60 %", "0.9962", "23.41"."""
    if value is None:
        return _NOTHING
    if _SHARE.search(kind(metric).lower()) and 0 <= value <= 1:
        return percent(value)
    return f"{value:.4f}" if "cos" in kind(metric).lower() else number(float(value))


def interval(ends: list[float] | None, metric: str | None) -> str:
    """A confidence interval: "98.60 to 99.80 %"; "" where there is none."""
    if ends is None:
        return ""
    low, high = (quality(end, metric) for end in ends)
    return f"{low.removesuffix(' %') if high.endswith(' %') else low} to {high}"


def drop(value: float | None, metric: str | None) -> str:
    """What was lost, in the unit of the gates: "0.50 points", "0.0031"."""
    if value is None:
        return _NOTHING
    if counts_points(metric):
        return f"{_points(value)} {'point' if abs(value) == 1 else 'points'}"
    return number(float(value))


def loss_interval(ends: list[float] | None, metric: str | None) -> str:
    """A confidence interval of what was lost: "0.10 to 1.20 points"; "" where there is none."""
    if ends is None:
        return ""
    low, high = (drop(end, metric) for end in ends)
    return f"{low.partition(' ')[0]} to {high}"


def lost(value: float | None, metric: str | None, *, higher_is_better: bool = True) -> tuple[str, str]:
    """A loss as figure and words: ("0.31", "points of accuracy lost"); below 0 it is a gain.

    Args:
        value: how much worse, in the unit of the gates.
        metric: its name; without one it is quality.
        higher_is_better: of the metric.
    """
    gained = (value or 0) < 0
    if higher_is_better:
        told = f"{words(metric)} " + ("gained" if gained else "lost")
    else:
        told = ("lower " if gained else "higher ") + words(metric)
    if value is None:
        return _NOTHING, told
    if counts_points(metric):
        return _points(abs(value)), f"points of {told}"
    return drop(abs(value), metric), told


def gate(name: str, value: object) -> str:
    """What a gate found or wants, in the unit of its kind: "0.60 points" of "max_drop(accuracy)"."""
    what, _, metric = name.removesuffix(")").partition("(")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return number(value)
    if metric:
        return drop(value, metric) if what.startswith("max_drop") else quality(value, metric)
    if what.endswith("_ms"):
        return milliseconds(value)
    if what.endswith("_bytes"):
        return size(value)
    return f"{_three(value)}×" if what in ("min_size_ratio", "min_speedup") else number(value)


def power_of_ten(value: float) -> str:
    """A decade on an axis: "10⁻⁵"."""
    return "10" + f"{value:.0e}".partition("e")[2].replace("+0", "").replace("-0", "-").translate(
        _SUPERSCRIPT
    )


def shortened(text: str, longest: int) -> str:
    """A name that leaves out its middle where it is longer."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def listed(parts: list[str]) -> str:
    """Words as a list: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _points(value: float) -> str:
    """Two decimals, more where they would be none; 0 instead of the -0 and the 1e-14 that rounding leaves."""
    if abs(value) < 1e-9:
        return "0.00"
    return f"{value:.2f}" if abs(value) >= 0.01 else number(float(f"{value:.2g}"))


def _three(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
