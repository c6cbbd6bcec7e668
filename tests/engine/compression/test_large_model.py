"""Quantizing a model of more than a gigabyte takes a fraction of its size in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_model_deploy.engine.models import open_onnx, write_onnx
from benchmarks._large_onnx import make_model

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "_large_onnx.py"


@pytest.mark.slow
@pytest.mark.parametrize("files", ["external data", "one file"])
def test_a_gigabyte_takes_less_than_a_tenth_of_it(files: str, tmp_path: Path) -> None:
    source = tmp_path / "large.onnx"
    size = make_model(source, 1.05)
    if files == "one file":
        write_onnx(open_onnx(source), tmp_path / "one.onnx", folder=tmp_path, one_file=2_000_000_000)
        source.with_name("large.onnx.data").unlink()
        source = tmp_path / "one.onnx"
    for wanted, share in (("int8-dynamic", 0.26), ("int8-weight", 0.27), ("int4-weight", 0.17)):
        arguments = [sys.executable, str(PROGRAM), "quantize", str(source), str(tmp_path / "q.onnx"), wanted]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        assert found["model_bytes"] == pytest.approx(size, rel=1e-3)
        assert found["quantized_bytes"] < share * size
        assert found["peak_bytes_over_imports"] < 0.1 * size, (wanted, found)


def test_a_small_one_of_the_same_kind(tmp_path: Path) -> None:
    """The same program, quick enough for every day: memory stays below the model's size."""
    size = make_model(tmp_path / "small.onnx", 0.1)
    arguments = [
        sys.executable,
        str(PROGRAM),
        "quantize",
        str(tmp_path / "small.onnx"),
        str(tmp_path / "q.onnx"),
    ]
    done = subprocess.run([*arguments, "int8-dynamic"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["model_bytes"] == size
    assert found["peak_bytes_over_imports"] < 0.6 * size
