"""How far a changed model's answers are from the original's, as numbers that add up while they are small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    Answers = Mapping[str, np.ndarray]


def relative_error(original: Answers, changed: Answers) -> float:
    """Mean over the outputs of the squared error by the original's variance: noise by signal, 0 for equal answers.

    It adds up over independent errors. An output without variance counts its squared error by its squared mean.
    Class numbers and the like don't count beside outputs of real numbers, nor do places where the original isn't
    finite (a mask, say); NaN where the changed answers aren't, but the original's are.
    """
    import numpy as np

    parts = []
    for name in _compared(original):
        a, b = _finite_places(original[name], changed[name])
        scale = float(a.var()) or float(np.square(a).mean()) or 1.0
        parts.append(float(np.square(a - b).mean()) / scale)
    return float(np.mean(parts))


def cosine_loss(original: Answers, changed: Answers) -> float:
    """1 - mean over samples of the cosine between the answers, all outputs in one vector.

    Two zero vectors are alike. NaN where the changed answers are not finite, but the original's are.
    """
    import numpy as np

    pairs = [_finite_places(original[name], changed[name]) for name in sorted(_compared(original))]
    a, b = (np.concatenate([p[i].reshape(len(p[i]), -1) for p in pairs], axis=1) for i in (0, 1))
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = lengths[0] * lengths[1]
    cosines = (a * b).sum(axis=1) / np.where(both == 0, 1, both)
    return float(1 - np.where((lengths[0] == 0) & (lengths[1] == 0), 1, cosines).mean())


def _compared(answers: Answers) -> list[str]:
    """The outputs of real numbers; where there are none, those of any numbers."""
    for kinds in ("f", "iub"):
        found = [name for name, value in answers.items() if value.dtype.kind in kinds]
        if found:
            return found
    raise InputError(
        "the model's outputs",
        found=", ".join(f"{name}: {value.dtype.name}" for name, value in answers.items()) or "none",
        wanted="at least one of numbers: losses are distances",
    )


def _finite_places(original: np.ndarray, changed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, with zeros where the original isn't finite."""
    import numpy as np

    a, b = original.astype(np.float64), changed.astype(np.float64)
    known = np.isfinite(a)
    b = np.where(known & ~np.isfinite(b), np.nan, b)
    return np.where(known, a, 0), np.where(known, b, 0)
