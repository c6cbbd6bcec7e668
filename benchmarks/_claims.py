"""What a part of the benchmark found: rows, and claims that hold or don't."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Found:
    """Rows and claims, added to as they come."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)

    def claim(
        self,
        name: str,
        value: float,
        *,
        most: float | None = None,
        least: float | None = None,
        given: bool = True,
        **told: Any,
    ) -> None:
        """Add a claim.

        Args:
            name: its name.
            value: what was measured.
            most: the value's upper bound.
            least: its lower bound, where there is no upper one.
            given: what it is said under, such as a quality that was kept; without, the claim doesn't hold.
            told: more to tell.
        """
        bound = most if most is not None else least
        within = (most is None or value <= most) and (least is None or value >= least)
        claim = {"claim": name, "value": round(value, 4), "bound": bound, "holds": within and given}
        self.claims.append(claim | told)
