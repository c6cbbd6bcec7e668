"""Quantities spelled as the API server spells them, so that what was sent and what is read compare equal."""

from __future__ import annotations

import math

_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")


def cores(value: float) -> str:
    """Return a number of cores, rounded up to thousandths: "2", "250m"."""
    thousandths = math.ceil(round(value * 1000, 6))
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def binary(value: int) -> str:
    """Return a number of bytes in the largest unit that needs no fraction: "48Mi", "1Gi"."""
    unit = 0
    while value and value % 1024 == 0 and unit + 1 < len(_BINARY):
        value, unit = value // 1024, unit + 1
    return f"{value}{_BINARY[unit]}"
