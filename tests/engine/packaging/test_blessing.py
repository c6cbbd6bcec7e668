from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from airflow_model_deploy.engine.errors import GateError, IntegrityError
from airflow_model_deploy.engine.packaging import bless, verify_bundle, write_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow_model_deploy.engine.probing import Kind, Tolerance
    from tests.engine.packaging.conftest import Parts


def _bundle(parts: Parts, folder: Path, **changes: object) -> Path:
    parts.write(folder / "servable", **changes)
    write_bundle(folder / "servable", folder / "bundle")
    return folder / "bundle"


def test_a_bundle_that_keeps_its_promise_is_blessed(parts: Parts, tmp_path: Path) -> None:
    bundle = _bundle(parts, tmp_path)
    blessing = bless(bundle, python=sys.executable, memory_limit_bytes=1 << 30, latency_ms=5000)
    assert blessing.passed
    assert blessing.golden_matched == blessing.golden_total == len(parts.golden.requests)
    assert 0 < blessing.max_abs_error <= blessing.tolerance
    assert blessing.peak_memory_bytes > 10_000_000
    assert blessing.latency_ms > 0
    assert blessing.bundle_digest == verify_bundle(bundle)  # serving left nothing behind


def test_another_model_than_the_one_that_was_built_is_refused_with_the_differences(
    parts: Parts, tmp_path: Path
) -> None:
    parts.save_affine(tmp_path / "other.onnx", np.ones((4, 3), dtype=np.float32))
    bundle = _bundle(parts, tmp_path, model=tmp_path / "other.onnx")
    with pytest.raises(GateError, match=r"golden-000: output y\[0, 0\]: got .*, wanted .* \+-"):
        bless(bundle, python=sys.executable)


def test_a_model_within_the_promise_but_not_the_built_one_is_refused(parts: Parts, tmp_path: Path) -> None:
    """The loose tolerance alone would let any model of about the same quality through."""
    loose = {"y": replace(parts.golden.tolerance["original"]["y"], absolute=100.0)}
    tolerance: dict[Kind, Mapping[str, Tolerance]] = {
        "original": loose,
        "built": parts.golden.tolerance["built"],
    }
    parts.save_affine(tmp_path / "other.onnx", np.ones((4, 3), dtype=np.float32))
    golden = replace(parts.golden, tolerance=tolerance)
    bundle = _bundle(parts, tmp_path, model=tmp_path / "other.onnx", golden=golden)
    with pytest.raises(GateError, match="against built: golden-000"):
        bless(bundle, python=sys.executable)


def test_a_bundle_whose_server_does_not_start_is_refused_with_its_last_words(
    parts: Parts, tmp_path: Path
) -> None:
    model = onnx.load(parts.model)
    model.graph.node[0].domain = "somebody.else"
    onnx.save(model, tmp_path / "foreign.onnx")
    bundle = _bundle(parts, tmp_path, model=tmp_path / "foreign.onnx")
    with pytest.raises(GateError, match=r"exit code 3.*servable refused.*somebody\.else:MatMul"):
        bless(bundle, python=sys.executable)


def test_an_interpreter_that_is_not_there_is_a_refusal(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="/nowhere/python"):
        bless(_bundle(parts, tmp_path), python="/nowhere/python")


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"memory_limit_bytes": 1_000_000}, "too much memory"), ({"latency_ms": 1e-6}, "too slow")],
)
def test_a_limit_that_is_passed_is_a_refusal(
    parts: Parts, tmp_path: Path, limits: dict[str, float], words: str
) -> None:
    with pytest.raises(GateError, match=words):
        bless(_bundle(parts, tmp_path), python=sys.executable, **limits)  # type: ignore[arg-type]


def test_nothing_to_ask_is_no_blessing(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="no golden requests"):
        bless(_bundle(parts, tmp_path, golden=None), python=sys.executable)


def test_a_touched_bundle_is_not_even_started(parts: Parts, tmp_path: Path) -> None:
    bundle = _bundle(parts, tmp_path)
    (bundle / "start.py").write_text("print('mine')")
    with pytest.raises(IntegrityError, match=r"start\.py"):
        bless(bundle, python=sys.executable)
