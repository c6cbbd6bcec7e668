"""Says how far one model's answers are from another's; judges nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


@dataclass(frozen=True)
class OutputError:
    """Distance of one output from the reference's.

    Args:
        max_abs: largest |candidate - reference|; infinite where one is NaN or infinite and the other is not.
        mean_abs: mean of the same.
        cosine: mean over samples of the cosine between the flattened rows; 1 for two zero rows, 0 for one.
            NaN where a row is not finite on both sides.
        top1_agreement: share of rows with the same argmax; None unless 2-D with at least two columns.
        mismatched_nan: positions where exactly one of both is NaN.
    """

    max_abs: float
    mean_abs: float
    cosine: float
    top1_agreement: float | None
    mismatched_nan: int

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values; what is not finite is null."""
        values = {
            "max_abs": self.max_abs, "mean_abs": self.mean_abs, "cosine": self.cosine,
            "top1_agreement": self.top1_agreement, "mismatched_nan": self.mismatched_nan,
        }  # fmt: skip
        return {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}


def output_error(
    reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]
) -> dict[str, OutputError]:
    """Compare output by output, in float64. Equal infinities, and NaN against NaN, count as equal."""
    if set(reference) != set(candidate):
        raise InputError("outputs to compare", found=sorted(candidate), wanted=sorted(reference))
    return {name: _compare(name, value, candidate[name]) for name, value in reference.items()}


def _compare(name: str, reference: np.ndarray, candidate: np.ndarray) -> OutputError:
    import numpy as np

    if reference.shape != candidate.shape or reference.size == 0:
        raise InputError(
            f"output {name}", found=f"shape {candidate.shape}", wanted=f"shape {reference.shape}, not empty"
        )
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.abs(b - a))
    distance[np.isnan(distance)] = math.inf
    rows_a, rows_b = a.reshape(a.shape[0] if a.ndim else 1, -1), b.reshape(b.shape[0] if b.ndim else 1, -1)
    agreement = None
    if a.ndim == 2 and a.shape[1] > 1:
        agreement = float(np.mean(a.argmax(1) == b.argmax(1)))
    return OutputError(
        max_abs=float(distance.max()),
        mean_abs=float(distance.mean()),
        cosine=_cosine(rows_a, rows_b),
        top1_agreement=agreement,
        mismatched_nan=int((np.isnan(a) != np.isnan(b)).sum()),
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    import numpy as np

    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    # Scaled by the largest element first: squares of large values overflow, of small ones vanish.
    scale_a, scale_b = np.abs(a).max(1, keepdims=True), np.abs(b).max(1, keepdims=True)
    a, b = a / np.where(scale_a == 0, 1, scale_a), b / np.where(scale_b == 0, 1, scale_b)
    product = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (scale_a[:, 0] == 0) & (scale_b[:, 0] == 0)
    cosine = np.where(both_zero, 1.0, (a * b).sum(1) / np.where(product == 0, 1, product))
    return float(np.clip(cosine, -1, 1).mean())
