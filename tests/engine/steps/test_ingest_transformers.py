"""A transformers folder taken in, exported at any length, quantized, and held to gates of fidelity."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.models import create_session, run
from airflow_model_deploy.engine.steps import StepRequest, run_request
from tests.engine.models.tiny_transformers import save, save_embedder, texts

DATA = {"loader": {"path": "tiny_texts:load"}, "version": "1"}


@pytest.fixture
def store(tmp_path, user_code):
    return f"file://{tmp_path}/store"


def step(store, name, spec, **inputs):
    references = {role: result.artifact for role, result in inputs.items()}
    return run_request(StepRequest(step=name, spec=spec, inputs=references, store=store))


def ok(result):
    assert result.status == "succeeded", result.error
    return result


def ingest(store, folder, **spec):
    return step(store, "ingest", {"name": "text", "source": str(folder), **spec})


def _data(**options):
    return {**DATA, "loader": {**DATA["loader"], "options": options}}


@pytest.mark.parametrize(
    ("architecture", "output"),
    [
        ("GPT2LMHeadModel", "logits"),
        ("LlamaForCausalLM", "logits"),
        (None, "embedding"),
    ],
)
def test_it_exports_for_any_batch_and_length_and_answers_as_torch_does(store, tmp_path, architecture, output):
    folder = tmp_path / "hf"
    original = save(folder, architecture) if architecture else save_embedder(folder)
    taken = ok(ingest(store, folder))
    signature = Store(store).manifest(taken.artifact).description.signature
    assert [(t.name, t.shape, t.dtype) for t in signature.inputs] == [
        ("input_ids", ("batch", "sequence"), "int64"),
        ("attention_mask", ("batch", "sequence"), "int64"),
    ]
    assert [t.name for t in signature.outputs] == [output]
    exported = ok(step(store, "export", {}, model=taken))
    files, _ = Store(store).fetch(exported.artifact)
    session = create_session(files / "model.onnx")
    for lengths, width in (([7], 7), ([3, 5, 1, 30, 2], 30), ([2, 1], 2)):
        feed = texts(lengths, width)
        with torch.no_grad():
            found = original(**feed)
        if output == "embedding":
            mask = feed["attention_mask"][..., None]
            pooled = (found.last_hidden_state * mask).sum(1) / mask.sum(1)
            wanted = pooled / pooled.norm(dim=1, keepdim=True)
        else:
            wanted = found[output]
        answers = run(session, {name: tensor.numpy() for name, tensor in feed.items()})
        np.testing.assert_allclose(answers[output], wanted.numpy(), atol=2e-5)


def test_it_is_taken_in_once_and_anew_when_it_changes(store, tmp_path):
    folder = tmp_path / "hf"
    save_embedder(folder)
    (folder / "tokenizer.json").write_text("{}")
    first = ok(ingest(store, folder))
    again = ok(ingest(store, f"file://{folder}/"))
    assert again.artifact.digest != first.artifact.digest  # the spec names another source
    assert again.metrics == first.metrics
    assert ok(ingest(store, folder)).cached
    files, manifest = Store(store).fetch(first.artifact)
    assert (files / "tokenizer" / "tokenizer.json").is_file()
    assert {"weights.safetensors", "model.json", "example.safetensors"} <= {e.path for e in manifest.files}
    assert first.metrics["architecture"] == "BertModel"
    assert first.details["source"] == "hf"

    sure = ok(ingest(store, folder, sha256=first.metrics["source_sha256"]))
    assert sure.metrics == first.metrics
    path = folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps({"pooling_mode": "cls"}))
    assert not ok(ingest(store, folder)).cached
    wrong = ingest(store, folder, sha256="0" * 64)
    assert wrong.error["integrity"]
    assert "the model folder" in wrong.error["message"]


def test_its_artifact_is_taken_without_a_listed_factory(store, tmp_path):
    save(tmp_path / "hf")
    taken = ok(ingest(store, tmp_path / "hf"))
    passed = ok(step(store, "ingest", {"name": "text", "source": taken.artifact.uri}))
    assert passed.artifact == taken.artifact


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"factory": {"path": "toy_model:build"}}, "Leave out the factory"),
        ({"data": _data(names=["ids", "mask"])}, "input_ids and attention_mask"),
        ({"data": {**DATA, "loader": {"path": "toy_data:load"}}}, "points: float32"),
        ({"task": "speech"}, "'auto', 'embedding'"),
    ],
)
def test_specs_that_do_not_fit(store, tmp_path, spec, reason):
    save_embedder(tmp_path / "hf")
    result = ingest(store, tmp_path / "hf", **spec)
    assert result.status == "failed"
    assert result.error["permanent"]
    assert reason in result.error["message"]
    assert not list((tmp_path / "store" / "artifacts").glob("*/files/weights.safetensors"))


def test_a_folder_that_is_not_there_and_one_with_code_of_its_own(store, tmp_path):
    assert "no such folder" in ingest(store, tmp_path / "none").error["message"]
    save(tmp_path / "hf")
    config = tmp_path / "hf" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "m.M"}}))
    (tmp_path / "hf" / "m.py").write_text("raise SystemExit('run')")
    assert "never run" in ingest(store, tmp_path / "hf").error["message"]


def test_a_classifier_and_a_language_model_are_measured_with_their_targets(store, tmp_path):
    save(tmp_path / "classes", "BertForSequenceClassification")
    save(tmp_path / "tokens", "GPT2LMHeadModel")
    classes = ok(ingest(store, tmp_path / "classes", data=_data(targets="labels")))
    assert classes.metrics["metric"] == "accuracy"
    low, high = classes.metrics["quality_ci"]
    assert 0 <= low <= classes.metrics["quality"] <= high <= 1
    tokens = ok(ingest(store, tmp_path / "tokens", data=_data(targets="tokens"), metric="perplexity"))
    assert 30 < tokens.metrics["quality"] < 130  # 64 tokens, random weights
    assert tokens.metrics["higher_is_better"] is False


def test_an_embedder_passes_from_folder_to_gates_of_fidelity(store, tmp_path):
    save_embedder(tmp_path / "hf")
    measured = {"data": DATA, "metric": "cosine"}
    taken = ok(ingest(store, tmp_path / "hf", **measured))
    assert taken.metrics["quality"] == pytest.approx(1, abs=1e-9)  # the original is like itself
    quantized = ok(step(store, "quantize", {"mode": "dynamic", **measured}, model=taken))
    built = ok(step(store, "build", {"data": DATA}, model=quantized, baseline=taken))
    gates = {"max_quality_drop": 5, "min_quality": 0.9, "min_cosine": 0.9, "confident": True}
    tested = ok(step(store, "test", {**measured, **gates}, servable=built, baseline=taken))
    low, high = tested.metrics["quality_ci"]
    assert 0.9 < low <= tested.metrics["quality"] <= high <= 1
    assert tested.metrics["drop"] == pytest.approx(100 * (1 - tested.metrics["quality"]), abs=1e-4)
    assert tested.metrics["drop_ci"][0] <= tested.metrics["drop"] <= tested.metrics["drop_ci"][1]
    assert tested.details["baseline_quality"] == pytest.approx(1)
    assert "agreement" not in tested.metrics  # an embedding is no score of classes
    neighbours = ok(
        step(
            store,
            "test",
            {"data": DATA, "metric": "retrieval", "max_quality_drop": 60},
            servable=built,
            baseline=taken,
        )
    )
    assert 0.4 <= neighbours.metrics["quality"] <= 1
    refused = step(store, "test", {**measured, "min_cosine": 1.0}, servable=built, baseline=taken)
    assert "cosine with the original is 0.9" in refused.error["message"]
