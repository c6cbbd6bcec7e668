from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from airflow_model_deploy.engine.compression import (
    Candidate,
    Choice,
    CpuFingerprint,
    Measurement,
    apply_choice,
    candidates,
    choose,
)
from airflow_model_deploy.engine.compression.optimization import UNCHANGED, UNOPTIMIZED, _decide
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import check_onnx, create_session, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)}


@pytest.fixture(scope="module")
def choice(norm_file: Path, pictures: dict[str, np.ndarray]) -> Choice:
    # Other work on the machine can hide a gain, never invent one in two passes: a quiet moment is waited for.
    for _ in range(4):
        found = choose(norm_file, pictures, batch_sizes=(1, 8), rounds=30, max_seconds=6, noise=0.1)
        if found.candidate.name != UNCHANGED:
            break
    return found


def test_folding_batch_norms_gains(choice: Choice, norm_file: Path, tmp_path: Path) -> None:
    """Sooner to start than the default, which folds at load, and far faster than without folding."""
    assert choice.candidate.name != UNCHANGED
    assert choice.settings.graph_optimization_level == "disable"
    assert choice.gain_unoptimized > 0.03
    assert choice.gain > -0.11
    table = {m.name: m for m in choice.measurements}
    assert table[choice.candidate.name].load_seconds < table[UNCHANGED].load_seconds
    apply_choice(choice, norm_file, tmp_path / "model.onnx")
    assert "BatchNormalization" not in [n.op_type for n in onnx.load(tmp_path / "model.onnx").graph.node]


def test_the_chosen_file_answers_alike_and_is_valid(
    choice: Choice, norm_file: Path, pictures: dict[str, np.ndarray], tmp_path: Path
) -> None:
    apply_choice(choice, norm_file, tmp_path / "model.onnx")
    check_onnx(tmp_path / "model.onnx")
    want = run(create_session(norm_file), pictures)["y"]
    got = run(create_session(tmp_path / "model.onnx", choice.settings), pictures)["y"]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_a_pinned_choice_repeats_the_bytes_without_measuring(
    choice: Choice, norm_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_model_deploy.engine.compression.trials.interleaved_seconds", None)
    pinned = Choice.from_json(json.loads(json.dumps(choice.to_json())))
    assert pinned == choice
    for candidate in candidates(norm_file):
        one = dataclasses.replace(pinned, candidate=candidate, settings=candidate.settings(1))
        apply_choice(one, norm_file, tmp_path / "a.onnx")
        apply_choice(one, norm_file, tmp_path / "b.onnx")
        assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
        if candidate.name == UNCHANGED:
            assert (tmp_path / "a.onnx").read_bytes() == norm_file.read_bytes()


def test_a_choice_holds_for_its_source_and_its_kind_of_cpu(
    choice: Choice, mlp_file: Path, norm_file: Path
) -> None:
    with pytest.raises(InputError, match="Measure again"):
        apply_choice(choice, mlp_file, norm_file.with_name("never.onnx"))
    other = CpuFingerprint("riscv64", "another", (), 1)
    bound = dataclasses.replace(choice, candidate=Candidate("offline-all", "all"), cpu=other)
    with pytest.raises(InputError, match="one for this CPU"):
        apply_choice(bound, norm_file, norm_file.with_name("never.onnx"))
    portable = dataclasses.replace(bound, candidate=Candidate("offline-extended", "extended"))
    apply_choice(portable, norm_file, norm_file.with_name("portable.onnx"))


def test_skip_layer_norm_fusion_is_tried_off_where_the_graph_could_fuse_it(
    tmp_path: Path, norm_file: Path
) -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = [onnx.numpy_helper.from_array(np.ones(4, np.float32), n) for n in ("scale", "bias")]
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("LayerNormalization", ["s", "scale", "bias"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, kind, ["batch", 3, 4]) for n in ("a", "b", "y")]
    graph = helper.make_graph(nodes, "skip", values[:2], values[2:], weights)
    path = tmp_path / "skip.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    names = {c.name for c in candidates(path)}
    assert {"unchanged-no-skip-fusion", "offline-extended-no-skip-fusion"} <= names
    assert not any("skip" in c.name for c in candidates(norm_file))
    array = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    made = choose(path, {"a": array, "b": array}, batch_sizes=[1], rounds=3, max_seconds=1)
    fused = dataclasses.replace(made, candidate=Candidate("x", "extended"))
    plain = dataclasses.replace(made, candidate=Candidate("x", "extended", ("SkipLayerNormFusion",)))
    for one, operators in ((fused, {"SkipLayerNormalization"}), (plain, {"Add", "LayerNormalization"})):
        apply_choice(one, path, tmp_path / "out.onnx")
        assert {n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node} == operators


def decide(**times: tuple[float, float, float]) -> str:
    """The choice among candidates given as (seconds a call, seconds to load, error)."""
    times = {UNCHANGED: (1.0, 1.0, 0.0), UNOPTIMIZED: (2.0, 0.5, 0.0), **times}
    levels = {"basic": "basic", "extended": "extended", "all": "all"}
    tried = [Candidate(n, levels.get(n)) for n in (UNCHANGED, *levels, UNOPTIMIZED) if n in times]  # type: ignore[arg-type]
    table = {n: Measurement(n, {1: t}, load, 1, error) for n, (t, load, error) in times.items()}
    return _decide(tried, [table, table], 0.03, 1e-3)[0].name


def test_rules_of_the_choice() -> None:
    assert decide(basic=(0.99, 0.95, 0.0)) == UNCHANGED  # within the noise, and starts no sooner
    assert decide(basic=(0.9, 2.0, 0.0)) == "basic"  # faster
    assert decide(basic=(0.9, 0.5, 0.1)) == UNCHANGED  # faster, and wrong
    assert decide(basic=(0.9, 0.5, float("inf"))) == UNCHANGED
    assert decide(basic=(1.0, 0.5, 0.0)) == "basic"  # as fast, and starts sooner
    assert decide(basic=(1.1, 0.1, 0.0)) == UNCHANGED  # slower
    assert decide(extended=(0.81, 0.5, 0.0), all=(0.8, 0.5, 0.0)) == "extended"  # portable, nearly as fast
    assert decide(extended=(0.9, 0.5, 0.0), all=(0.7, 0.5, 0.0)) == "all"


def test_wrong_inputs_and_arguments(norm_file: Path, pictures: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="inputs of the model"):
        choose(norm_file, {"z": pictures["x"]}, rounds=3)
    with pytest.raises(InputError, match="batch_sizes"):
        choose(norm_file, pictures, batch_sizes=())
    with pytest.raises(InputError, match="threads"):
        choose(norm_file, pictures, threads=0)
