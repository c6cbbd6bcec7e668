"""Virtual environments made of links into this one, so that a test can have one without Airflow or without torch."""

from __future__ import annotations

import sys
import sysconfig
from importlib.metadata import distribution, distributions
from pathlib import Path

ENGINE_ONLY = (
    "torch", "torch-pruning", "onnx", "onnxruntime", "onnxscript", "onnx-ir", "safetensors", "numpy", "scipy",
    "scikit-learn", "matplotlib", "ml-dtypes", "contourpy",
)  # fmt: skip


def linked_venv(folder: Path, *, without: tuple[str, ...]) -> Path:
    """Make an environment with everything installed here but some distributions; returns its interpreter."""
    source = Path(sysconfig.get_paths()["purelib"])
    site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    hidden = {place for name in without for place in _top_level(name)}
    for entry in source.iterdir():
        if entry.name not in hidden and entry.name != "__pycache__":
            (site / entry.name).symlink_to(entry)
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    (folder / "pyvenv.cfg").write_text(
        f"home = {Path(sys.executable).resolve().parent}\ninclude-system-site-packages = false\n"
    )
    airflow = folder / "bin" / "airflow"
    airflow.write_text(f"#!{python}\nfrom airflow.__main__ import main\nmain()\n")
    airflow.chmod(0o755)
    return python


def airflow_distributions() -> tuple[str, ...]:
    """Return the names of Airflow and all of its providers."""
    names = {found.metadata["Name"] for found in distributions()}
    return tuple(sorted(name for name in names if name.startswith("apache-airflow")))


def _top_level(name: str) -> set[str]:
    files = distribution(name).files or []
    return {file.parts[0] for file in files if file.parts[0] != ".."}
