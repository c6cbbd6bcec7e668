"""Answers against golden ones, element by element; pure: knows no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from airflow_model_deploy.engine.probing.golden import GoldenRequest, GoldenSet, Kind, Tolerance

    Arrays = Mapping[str, np.ndarray[Any, Any]]

_LINES_PER_OUTPUT = 3
_LINES_IN_ALL = 40


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        against: whose answers were wanted.
        matched: requests of which every output matched.
        total: requests in the golden set.
        max_abs_error: largest |got - want| seen (NaN counts as infinity); 0 where nothing could be compared.
        tolerance: the largest absolute tolerance among the outputs.
        mismatches: readable lines: request, output, element, got, wanted, allowed; the first of them only.
        parts: the comparisons that this one sums up.
    """

    against: Literal["original", "built", "both"]
    matched: int
    total: int
    max_abs_error: float
    tolerance: float
    mismatches: tuple[str, ...] = ()
    parts: tuple[Comparison, ...] = ()

    @property
    def passed(self) -> bool:
        """Every request matched, and there was one."""
        return self.total > 0 and self.matched == self.total

    @property
    def summary(self) -> str:
        """One line; where something is wrong, with the first mismatch."""
        line = (
            f"{self.matched} of {self.total} golden requests match ({self.against});"
            f" largest error {self.max_abs_error:.3g}, tolerance {self.tolerance:.3g}"
        )
        return line if self.passed or not self.mismatches else f"{line}; {self.mismatches[0]}"

    def figures(self) -> dict[str, Any]:
        """Return what a report tells: matched of total, and the error against the original's answers."""
        original = self.parts[0] if self.parts else self
        return {
            "total": self.total,
            "matched": self.matched,
            "max_abs_error": original.max_abs_error,
            "tolerance": original.tolerance,
        }


def compare(
    golden: GoldenSet,
    answers: Mapping[str, Arrays | str],
    *,
    against: Kind,
) -> Comparison:
    """Compare answers with the recorded ones.

    Args:
        golden: requests, recorded answers and tolerances.
        answers: request id -> outputs by name, or a sentence that says why there is no answer.
        against: whose recorded answers are wanted.

    Returns:
        A comparison; a missing answer, output or shape is a mismatch, never an error.
    """
    matched, worst, lines = 0, 0.0, []
    for request in golden.requests:
        answer = answers.get(request.id, "no answer")
        if isinstance(answer, str):
            lines.append(f"{request.id}: {answer}")
            continue
        error, wrong = _request(request, answer, golden.tolerance[against], against)
        worst = max(worst, error)
        matched += not wrong
        lines += wrong
    kept = tuple(lines[:_LINES_IN_ALL])
    if len(lines) > len(kept):
        kept += (f"... and {len(lines) - len(kept)} lines more",)
    return Comparison(against, matched, len(golden.requests), worst, golden.largest_absolute(against), kept)


def compare_both(golden: GoldenSet, answers: Mapping[str, Arrays | str]) -> Comparison:
    """Compare with both kinds of recorded answers: a request counts as matched where it matches both."""
    parts = tuple(compare(golden, answers, against=kind) for kind in ("original", "built"))
    matched = sum(matches(request, answers.get(request.id, ""), golden) for request in golden.requests)
    # What is missing altogether is said once, what is off is said for the answer it is off from.
    common = [line for line in parts[0].mismatches if line in parts[1].mismatches]
    lines = common + [f"against {p.against}: {n}" for p in parts for n in p.mismatches if n not in common]
    return Comparison(
        "both",
        matched,
        len(golden.requests),
        max(p.max_abs_error for p in parts),
        max(p.tolerance for p in parts),
        tuple(lines),
        parts,
    )


def matches(request: GoldenRequest, answer: Arrays | str, golden: GoldenSet) -> bool:
    """Whether one answer matches both recorded ones."""
    if isinstance(answer, str):
        return False
    kinds: tuple[Kind, Kind] = ("original", "built")
    return not any(_request(request, answer, golden.tolerance[kind], kind)[1] for kind in kinds)


def _request(
    request: GoldenRequest, answer: Arrays, tolerance: Mapping[str, Tolerance], against: Kind
) -> tuple[float, list[str]]:
    worst, lines = 0.0, []
    for output, want in request.answer(against).items():
        label = f"{request.id}: output {output}"
        got = answer.get(output)
        if got is None:
            lines.append(f"{label}: missing; got {', '.join(sorted(answer)) or 'none'}")
        elif got.shape != want.shape:
            lines.append(f"{label}: got shape {list(got.shape)}, wanted {list(want.shape)}")
        elif against == "built" and got.dtype != want.dtype:
            lines.append(f"{label}: got {got.dtype}, wanted {want.dtype}")
        else:
            error, wrong = _elements(label, got, want, tolerance[output])
            worst = max(worst, error)
            lines += wrong
    return worst, lines


def _elements(
    label: str, got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], tolerance: Tolerance
) -> tuple[float, list[str]]:
    import numpy as np

    if got.dtype.kind == "O" or want.dtype.kind == "O":
        equal = bool((got == want).all())
        return 0.0, [] if equal else [f"{label}: the texts differ"]
    # 64-bit integers don't fit a double; the wider type keeps their differences exact.
    wide: Any = np.longdouble if want.dtype.kind in "iu" else np.float64
    wanted = want.astype(wide)
    error = np.abs(got.astype(wide) - wanted)
    error = np.where(np.isnan(error), np.inf, error)
    allowed = tolerance.absolute + tolerance.relative * np.abs(wanted)
    wrong = np.argwhere(~(error <= allowed))
    lines = [
        f"{label}{[int(n) for n in at]}: got {got[tuple(at)]}, wanted {want[tuple(at)]}"
        f" +- {float(allowed[tuple(at)]):.6g}"
        for at in wrong[:_LINES_PER_OUTPUT]
    ]
    if len(wrong) > len(lines):
        lines.append(f"{label}: {len(wrong)} of {want.size} elements are off")
    return float(error.max(initial=0.0)), lines
