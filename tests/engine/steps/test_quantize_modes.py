"""The quantize step: every mode on a real model, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from airflow_model_deploy.engine.artifacts import Description, Store
from airflow_model_deploy.engine.compression import weighted_nodes
from airflow_model_deploy.engine.models import read_signature
from airflow_model_deploy.engine.steps import StepRequest, run_request
from tests.engine.compression.graphs import initializers, language_model, operators

PRODUCTS = ("up", "gate", "down", "gemm", "head")
LOADER = """
import numpy as np
def load(split):
    tokens = np.random.default_rng(0).integers(0, 211, (40, 7))
    return {"tokens": tokens}, None
def fingerprint():
    return "1"
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantize")
    return Store(f"file://{folder}/store")


@pytest.fixture
def data(tmp_path, monkeypatch, forget_modules):
    (tmp_path / "token_data.py").write_text(LOADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_modules(["token_data"])
    return {"loader": {"path": "token_data:load"}, "fingerprint": {"path": "token_data:fingerprint"}}


@pytest.fixture
def model(store, tmp_path):
    return published(store, tmp_path / "plain")


def published(store, folder, **files):
    folder.mkdir()
    path = language_model(folder / "model.onnx", sparse=0.3)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content)
    description = Description(
        name="tokens", kind="model", format="onnx", signature=read_signature(path), metrics={}
    )
    return store.publish(folder, description)[0]


def quantize(store, model, **spec):
    return run_request(StepRequest(step="quantize", spec=spec, inputs={"model": model}, store=str(store.url)))


def made(store, result, tmp_path):
    assert result.status == "succeeded", result.error
    folder, _ = store.fetch(result.artifact, tmp_path / "fetched")
    return folder / "model.onnx"


@pytest.mark.parametrize(
    ("spec", "precision", "operator", "formats"),
    [
        ({"mode": "static"}, "mixed", "QuantizeLinear", None),
        ({"mode": "dynamic"}, "int8", "MatMulInteger", None),
        ({"mode": "weight-only"}, "int8", "MatMulNBits", {"int8-weight": 6}),
        ({"mode": "weight-only", "bits": 4}, "mixed", "MatMulNBits", {"int4-weight": 5, "int8-weight": 1}),
        (
            {"mode": "mixed", "formats": {"*": "int8-dynamic", "down": "int4-weight", "head": "fp32"}},
            "mixed", "MatMulNBits", {"fp32": 1, "int4-weight": 1, "int8-dynamic": 4},
        ),
    ],
)  # fmt: skip
def test_each_mode_keeps_the_zeros_and_says_what_it_did(
    spec, precision, operator, formats, store, model, data, tmp_path
):
    result = quantize(store, model, data=data, **spec)
    path = made(store, result, tmp_path)
    assert operator in operators(path)
    assert result.metrics["precision"] == precision
    assert result.metrics["model_bytes"] == path.stat().st_size < 0.8 * result.metrics["exported_bytes"]
    assert 0.25 * 108_384 < result.metrics["zeros_before"] <= result.metrics["zeros_after"]
    assert result.details.get("formats") == formats
    assert quantize(store, model, data=data, **spec).cached


def test_four_bits_are_smaller_than_eight(store, model):
    sizes = [quantize(store, model, mode="weight-only", bits=bits).metrics["model_bytes"] for bits in (8, 4)]
    assert sizes[1] < 0.75 * sizes[0]


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight-only"])
def test_parts_of_a_model(mode, store, model, data, tmp_path):
    spec = {"include_nodes": ["*e*"], "include_ops": ["MatMul"], "exclude_nodes": ["head"], "mode": mode}
    path = made(store, quantize(store, model, data=data, **spec), tmp_path)
    kept = {node.name for node in weighted_nodes(path)}
    assert kept >= {"embed", "up", "down", "gemm", "head"} - {"gate"}
    stored = initializers(path)
    assert "gate_w" not in stored
    assert "up_w" in stored


def test_a_plan_beside_the_model_is_carried_out(store, tmp_path, data):
    formats = {"up": "int8-dynamic", "head": "int4-weight", "embed": "int8-weight", "gemm": "int8-static"}
    planned = published(
        store, tmp_path / "planned", plan=json.dumps({"schema_version": 1, "formats": formats})
    )
    result = quantize(store, planned, mode="plan", data=data)
    found = operators(made(store, result, tmp_path))
    assert {"MatMulInteger", "MatMulNBits", "QuantizeLinear"} <= set(found)
    assert result.details["formats"] == {
        "int4-weight": 1,
        "int8-dynamic": 1,
        "int8-static": 1,
        "int8-weight": 1,
    }
    mixed = quantize(store, published(store, tmp_path / "plain2"), mode="mixed", formats=formats, data=data)
    other = made(store, mixed, tmp_path)
    np.testing.assert_equal(initializers(other), initializers(made(store, result, tmp_path)))


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (None, "no plan.json beside the model"),
        ("{", "the model's plan.json; found: JSONDecodeError"),
        ("{}", "the model's plan.json; found: KeyError"),
        ('{"formats": {"up": "int5"}}', '"formats" in the model\'s plan.json'),
        ('{"formats": {"away": "int8-weight"}}', "node 'away'"),
    ],
)
def test_plans_that_cannot_be_carried_out(plan, reason, store, tmp_path):
    files = {} if plan is None else {"plan": plan}
    result = quantize(store, published(store, tmp_path / "m", **files), mode="plan")
    assert result.status == "failed"
    assert reason in result.error["message"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"mode": "static"}, "static quantization needs data"),
        ({"mode": "mixed"}, "mode 'mixed' needs formats"),
        (
            {"mode": "dynamic", "formats": {"up": "int8-weight"}},
            "formats in mode 'dynamic'; wanted: mode 'mixed'",
        ),
        ({"mode": "mixed", "formats": {"up": "fp32"}, "exclude_nodes": ["up"]}, "some in mode 'mixed'"),
        ({"mode": "mixed", "formats": {"up": "int9"}}, "formats"),
        ({"mode": "mixed", "formats": {"up": "int8-static"}}, "needs data to find the ranges"),
        ({"mode": "weight-only", "bits": 3}, "bits = 3"),
        ({"mode": "dynamic", "exclude_nodes": ["*"]}, "none is left"),
        ({"mode": "dynamic", "include_nodes": ["scores"]}, "no operator was quantized"),
        ({"mode": "weight-only", "include_ops": ["Conv"]}, "include_ops; found: ['Conv']"),
    ],
)
def test_specs_that_cannot_be_meant(spec, reason, store, model):
    result = quantize(store, model, **spec)
    assert result.status == "failed"
    assert reason in result.error["message"]
