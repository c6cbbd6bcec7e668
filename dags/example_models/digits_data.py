"""The 1797 handwritten digits that scikit-learn ships (8 x 8 grey levels): 1297 to train on, 500 to test on."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TEST_SAMPLES = 500
_SPLIT_SEED = 20


def load(split: str, path: str | None = None) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Load a split: images (n, 1, 8, 8) float32 in [0, 1] under "images", labels (n,) int64.

    Args:
        split: "train" or "test".
        path: a file in scikit-learn's format (CSV, 64 grey levels of 0..16 and the label a line) instead of its own.
    """
    import numpy as np

    table = np.loadtxt(_file(path), delimiter=",", dtype=np.int64)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(table))
    rows = table[order[:-TEST_SAMPLES] if split == "train" else order[-TEST_SAMPLES:]]
    images = (rows[:, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    return {"images": images}, rows[:, -1]


def fingerprint(path: str | None = None) -> str:
    """Return the sha256 of the file that `load` reads."""
    return hashlib.sha256(_file(path).read_bytes()).hexdigest()


def _file(path: str | None) -> Path:
    if path is not None:
        return Path(path)
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the digits images come with scikit-learn: pip install scikit-learn")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
