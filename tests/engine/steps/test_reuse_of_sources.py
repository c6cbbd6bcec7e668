"""A model file that changed behind the same path is taken in again: an old one must not be deployed in its name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_model_deploy.engine.steps import StepRequest, run_request

DATA = {"loader": {"path": "toy_data:load"}, "fingerprint": {"path": "toy_data:fingerprint"}}


def _save(path, seed):
    import torch
    import toy_model
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    save_file(toy_model.build().state_dict(), path)


@pytest.fixture
def ingest(tmp_path, user_code):
    def run(**more):
        spec = {
            "name": "toy",
            "source": str(tmp_path / "toy.safetensors"),
            "factory": {"path": "toy_model:build"},
            "data": DATA,
            **more,
        }
        result = run_request(StepRequest("ingest", spec, {}, f"file://{tmp_path}/store"))
        assert result.status == "succeeded", result.error
        return result

    return run


def test_the_same_weights_are_found_and_changed_ones_are_not(tmp_path, ingest):
    _save(tmp_path / "toy.safetensors", 1)
    first = ingest()
    assert ingest().cached
    _save(tmp_path / "toy.safetensors", 2)
    second = ingest()
    assert not second.cached
    assert second.artifact != first.artifact


def test_a_hit_imports_no_torch(tmp_path, user_code):
    spec = {
        "name": "toy",
        "factory": {"path": "toy_model:build"},
        "fit": {"path": "toy_model:fit"},
        "data": {"loader": {"path": "toy_data:load"}, "version": "1"},
        "epochs": 1,
    }
    request = {
        "schema_version": 1,
        "step": "train",
        "spec": spec,
        "inputs": {},
        "store": f"file://{tmp_path}/store",
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = ["-X", "importtime", "-m", "airflow_model_deploy.engine.cli", "run", "train", "--request"]
    runs = [
        subprocess.run(
            [sys.executable, *command, str(tmp_path / "request.json")],
            capture_output=True,
            text=True,
            check=True,
        )
        for _ in range(2)
    ]
    results = [json.loads(run.stdout) for run in runs]
    imported = [{line.rpartition("|")[2].strip() for line in run.stderr.splitlines()} for run in runs]
    assert [result["cached"] for result in results] == [False, True]
    assert results[1]["duration_s"] < 1.0
    assert "torch" in imported[0]
    assert not {"torch", "onnx", "onnxruntime", "numpy"} & imported[1]
