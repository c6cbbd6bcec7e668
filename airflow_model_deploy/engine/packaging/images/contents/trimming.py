"""What an image does without, with the reason for each and what it weighs; knows packages and imports none."""

from __future__ import annotations

import fnmatch
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.packaging.images.contents.elf import cut_unloaded

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Trim:
    """Paths that go.

    Args:
        pattern: of relative paths, as the shell writes them ("*" takes "/" too); a folder goes with all in it.
        why: who would miss it, and why nobody does here.
        weight: measured, where it is known.
        keep: names that stay all the same.
    """

    pattern: str
    why: str
    weight: str = ""
    keep: tuple[str, ...] = ()


# Weights: numpy 2.4.6, onnxruntime 1.32.0, torch 2.13.0 (CPU), onnx 1.23.2, sympy 1.14.0 for
# linux/amd64, in millions of bytes.
TRIMS = (
    # What pip notes about this very installation: where packages came from, when, and by whom.
    Trim("*.dist-info/RECORD", "lists what is removed below; there is no pip to uninstall with", "0.3 MB"),
    Trim("*.dist-info/INSTALLER", "says pip"),
    Trim("*.dist-info/REQUESTED", "says that pip was asked for it"),
    Trim("*.dist-info/direct_url.json", "names a path or an index of the machine that built the image"),
    Trim("bin", "scripts with this machine's interpreter in their first line", "0.1 MB"),
    # What no running program reads.
    Trim("*/tests", "a package's own tests", "numpy 6.9 MB, sympy and networkx 13 MB"),
    Trim("*.pyi", "types for checkers", "numpy and onnxruntime 1.1 MB, torch 2.9 MB"),
    Trim("*.pxd", "for who compiles against the package", "0.2 MB"),
    Trim("*.pyx", "sources of compiled modules", "0.4 MB"),
    Trim("*.h", "headers; an image has no compiler", "numpy 0.4 MB, torch 38 MB"),
    Trim("*.hpp", "headers", "torch 1.3 MB"),
    Trim("*.cuh", "headers", "torch 0.8 MB"),
    Trim("*.c", "sources of compiled modules", "0.1 MB"),
    Trim("*.cc", "sources of compiled modules", "onnx 2.4 MB"),
    Trim("*.a", "static libraries", "numpy 0.1 MB"),
    Trim("*.cmake", "for who compiles against the package", "torch 0.3 MB"),
    # numpy: nothing that its public modules import.
    Trim("numpy/f2py", "wraps Fortran for a compiler", "0.6 MB"),
    Trim("numpy/distutils", "builds packages", "0.7 MB"),
    Trim("numpy/_pyinstaller", "a hook of a packager"),
    Trim("numpy/_core/_simd.*.so", "the tests' view of the vector units", "1.5 MB"),
    Trim("numpy/_core/_*_tests.*.so", "compiled tests", "0.3 MB"),
    # onnxruntime.
    Trim(
        "onnxruntime/capi/libonnxruntime.so*",
        "the runtime once more, for C++; Python's is linked whole",
        "34.8 MB",
    ),
    Trim("onnxruntime/datasets", "three models to try it out"),
    # torch: programs and libraries of its own tests.
    Trim("torch/test", "compiled tests", "86 MB"),
    Trim("torch/bin/*", "compiled tests and protoc", "51.7 MB", keep=("torch_shm_manager",)),
    Trim("torch/lib/lib*_test.so", "libraries of its tests", "1.1 MB"),
    Trim("torch/lib/libaoti_custom_ops.so", "a library of its tests", "0.3 MB"),
    Trim("torch/lib/libbackend_with_compiler.so", "a library of its tests", "0.3 MB"),
    Trim("onnx/backend/test", "the standard's conformance tests", "11.9 MB"),
)

# A server only runs models; the worker quantizes and optimizes with these.
SERVER_TRIMS = (
    Trim("onnxruntime/tools", "converts and checks models", "0.5 MB"),
    Trim("onnxruntime/transformers", "rewrites transformers", "2.4 MB"),
    Trim("onnxruntime/quantization", "quantizes models", "0.8 MB"),
)


def trim(folder: Path, trims: tuple[Trim, ...]) -> int:
    """Remove what matches, and what a loader doesn't load from compiled modules; returns the bytes that went.

    Measured on the server's packages, 150.0 MB as pip installs them: 99.4 MB after the table, 85.8 MB when debug
    information is cut from compiled modules (uvloop 12.0 of 13.6 MB, httptools 1.4 MB).
    """
    before = size_of(folder)
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.exists() and any(_goes(relative, path.name, one) for one in trims):
            _remove(path)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (path.suffix == ".so" or ".so." in path.name):
            cut_unloaded(path)
    return before - size_of(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _goes(relative: str, name: str, one: Trim) -> bool:
    # Licences are kept wherever a package has put them.
    kept = name in one.keep or "/licenses/" in relative
    return not kept and fnmatch.fnmatchcase(relative, one.pattern)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
