"""Token arrays in files, and the loader that steps read them with: importable by its bare name, needs numpy alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def load(split: str, folder: str, files: dict[str, str]) -> tuple[dict[str, np.ndarray], None]:
    """Load the file that stands for a split."""
    return read(Path(folder) / files[split]), None


def read(path: Path) -> dict[str, np.ndarray]:
    """Read arrays by name."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write arrays by name; returns the path."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path
