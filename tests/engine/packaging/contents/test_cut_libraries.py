from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_model_deploy.engine.packaging.images.contents.elf import cut_unloaded


def _library(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _segments(content: bytes) -> list[bytes]:
    """The bytes that a loader maps."""
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    found = []
    for at in range(offset, offset + size * count, size):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", content, at)
        if kind == 1:  # PT_LOAD
            found.append(content[start : start + length])
    return found


def test_debug_information_goes_and_no_loaded_byte_changes(tmp_path: Path) -> None:
    library = _library("uvloop.loop")
    shutil.copytree(library.parent, tmp_path / "uvloop")
    path = tmp_path / "uvloop" / library.name
    before = path.read_bytes()
    gone = cut_unloaded(path)
    after = path.read_bytes()
    assert len(after) == len(before) - gone < len(before) / 2
    first, *others = _segments(before)
    first_after, *others_after = _segments(after)
    assert first_after[64:] == first[64:]  # the file header says now that there is no section table
    assert others_after == others
    code = "import asyncio, uvloop; print(uvloop.__file__, uvloop.run(asyncio.sleep(0.01, 'slept')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "uvloop/__init__.py"), "slept"]
    assert cut_unloaded(path) == 0


@pytest.mark.parametrize("kept", [0, 10, 64, 100, 5000])
def test_a_file_that_is_cut_off_or_no_library_stays_as_it_is(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(_library("uvloop.loop").read_bytes()[:kept])
    before = path.read_bytes()
    assert cut_unloaded(path) == 0
    assert path.read_bytes() == before
    path.write_text("INPUT(-lc)\n" * 10)
    assert cut_unloaded(path) == 0
