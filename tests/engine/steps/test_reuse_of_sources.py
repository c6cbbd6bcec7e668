"""A model file that changed behind the same path is taken in again: an old one must not be deployed in its name."""

from __future__ import annotations

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
