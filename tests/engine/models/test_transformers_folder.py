"""Folders of the transformers library: what they hold, what is refused, and that the model is the same."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    TRANSFORMERS_FACTORY,
    load_torch_model,
    load_transformers,
    read_transformers_folder,
    resolve,
    save_torch_model,
    token_inputs,
    wanted_files,
)
from airflow_model_deploy.engine.models import transformers_library as library
from tests.engine.models.tiny_transformers import make, save, save_embedder, texts


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _load(folder, task="auto"):
    return load_transformers(read_transformers_folder(folder), task)


def _answers(model, feed):
    with torch.no_grad():
        return {name: value.numpy() for name, value in model(**feed).items()}


FEED = texts([9, 4, 1], 9)


@pytest.mark.parametrize(
    ("architecture", "task", "output"),
    [
        ("BertModel", "auto", "last_hidden_state"),
        ("BertForSequenceClassification", "auto", "logits"),
        ("BertForSequenceClassification", "classification", "logits"),
        ("BertForMaskedLM", "base", "last_hidden_state"),
        ("BertForTokenClassification", "auto", "logits"),
        ("GPT2LMHeadModel", "auto", "logits"),
        ("LlamaForCausalLM", "causal-lm", "logits"),
    ],
)
def test_a_folder_gives_the_librarys_own_answers_after_reloading(tmp_path, architecture, task, output):
    original = save(tmp_path / "hf", architecture)
    model, factory = _load(tmp_path / "hf", task)
    with torch.no_grad():
        body = original if output == "logits" else original.base_model
        wanted = body(**FEED)[output].numpy()
    found = _answers(model, FEED)
    assert list(found) == [output]
    np.testing.assert_allclose(found[output], wanted, atol=1e-6)

    save_torch_model(model, tmp_path / "model", factory=factory.path, options=factory.options)
    again = load_torch_model(tmp_path / "model", resolve)
    np.testing.assert_array_equal(_answers(again, FEED)[output], found[output])


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    save(tmp_path / "hf", "GPT2LMHeadModel")
    model, factory = _load(tmp_path / "hf")
    save_torch_model(model, tmp_path / "model", factory=factory.path, options=factory.options)
    stored = load_file(tmp_path / "model" / "weights.safetensors")
    assert len({"model.lm_head.weight", "model.transformer.wte.weight"} & set(stored)) == 1
    again = load_torch_model(tmp_path / "model", resolve)
    assert again.model.lm_head.weight is again.model.transformer.wte.weight


def test_another_process_loads_it_without_the_folder(tmp_path):
    save(tmp_path / "hf", "BertForSequenceClassification", num_labels=3)
    model, factory = _load(tmp_path / "hf")
    save_torch_model(model, tmp_path / "model", factory=factory.path, options=factory.options)
    for path in sorted((tmp_path / "hf").iterdir()):
        path.unlink()
    save_file(FEED, tmp_path / "feed.safetensors")
    code = (
        "import sys, torch; from safetensors.torch import load_file, save_file;"
        "from airflow_model_deploy.engine.models import load_torch_model, resolve;"
        "model = load_torch_model(sys.argv[1], resolve);"
        "save_file({k: v.detach() for k, v in model(**load_file(sys.argv[2])).items()}, sys.argv[3])"
    )
    places = [str(tmp_path / name) for name in ("model", "feed.safetensors", "out.safetensors")]
    subprocess.run([sys.executable, "-c", code, *places], check=True)
    found = load_file(tmp_path / "out.safetensors")["logits"].numpy()
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found, _answers(model, FEED)["logits"], atol=1e-6)


def test_shards_and_bfloat16_are_read_into_float32(tmp_path):
    original = save(tmp_path / "hf", "LlamaForCausalLM", shard="4KB", dtype=torch.bfloat16).float()
    folder = read_transformers_folder(tmp_path / "hf")
    assert sum(name.endswith(".safetensors") for name in folder.files) > 2
    model, _ = load_transformers(folder, "auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        wanted = original(**FEED).logits.numpy()
    np.testing.assert_allclose(_answers(model, FEED)["logits"], wanted, atol=1e-6)


def _pooled(hidden, mask, mode, normalize):
    """A numpy reference in float64."""
    hidden, mask = hidden.astype(np.float64), mask.astype(np.float64)
    rows = []
    for vectors, marks in zip(hidden, mask, strict=True):
        kept = vectors[marks == 1]
        row = {"mean": kept.mean(axis=0), "max": kept.max(axis=0), "cls": vectors[0]}[mode]
        rows.append(row / np.sqrt((row**2).sum()) if normalize else row)
    return np.array(rows)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("mode", "pooling"),
    [
        ("mean", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}),
        ("cls", {"pooling_mode_cls_token": True}),
        ("max", {"pooling_mode_max_tokens": True}),
        ("mean", {"pooling_mode": "mean", "embedding_dimension": 16}),
    ],
)
def test_an_embedding_is_pooled_as_sentence_transformers_does_it(tmp_path, mode, pooling, normalize):
    original = save_embedder(tmp_path, pooling=pooling, normalize=normalize)
    model, factory = _load(tmp_path)
    with torch.no_grad():
        hidden = original(**FEED).last_hidden_state.numpy()
    wanted = _pooled(hidden, FEED["attention_mask"].numpy(), mode, normalize)
    found = _answers(model, FEED)
    assert list(found) == ["embedding"]
    np.testing.assert_allclose(found["embedding"], wanted, atol=1e-6)
    assert factory.options["pooling"] == mode
    assert not any("pooler" in name for name in model.state_dict())


def test_older_and_newer_sentence_transformers_folders(tmp_path):
    save_embedder(tmp_path / "old", inner="0_Transformer")
    save_embedder(
        tmp_path / "new", kind="sentence_transformers.base.modules", pooling={"pooling_mode": "cls"}
    )
    old, new = _load(tmp_path / "old"), _load(tmp_path / "new")
    assert (old[1].options["pooling"], new[1].options["pooling"]) == ("mean", "cls")
    assert "0_Transformer/model.safetensors" in read_transformers_folder(tmp_path / "old").files
    assert list(_answers(_load(tmp_path / "old", "base")[0], FEED)) == ["last_hidden_state"]


def test_padding_does_not_change_an_embedding(tmp_path):
    save_embedder(tmp_path)
    model, _ = _load(tmp_path)
    short = texts([5, 5], 5)
    padded = {name: torch.nn.functional.pad(value, (0, 7)) for name, value in short.items()}
    np.testing.assert_allclose(
        _answers(model, padded)["embedding"], _answers(model, short)["embedding"], atol=1e-6
    )


def test_token_types_are_taken_where_they_are_given(tmp_path):
    original = save(tmp_path, "BertForSequenceClassification")
    feed = {**FEED, "token_type_ids": (torch.arange(9) > 3).long().expand(3, 9)}
    model, _ = _load(tmp_path)
    with torch.no_grad():
        wanted = original(**feed).logits.numpy()
    np.testing.assert_allclose(_answers(model, feed)["logits"], wanted, atol=1e-6)
    assert not np.allclose(_answers(model, FEED)["logits"], wanted)


def test_the_factory_is_the_packages_own_and_its_options_are_plain(tmp_path):
    save(tmp_path)
    _, factory = _load(tmp_path)
    assert factory.path == TRANSFORMERS_FACTORY
    assert json.loads(json.dumps(factory.options)) == factory.options
    assert factory.options["config"]["vocab_size"] == 64
    assert not {"_name_or_path", "transformers_version", "dtype"} & set(factory.options["config"])


def _config(folder, **changes):
    path = folder / "config.json"
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: item for name, item in value.items() if item != "gone"}))


@pytest.mark.parametrize(
    ("changes", "task", "reason"),
    [
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, "auto", "code of the model's own.*never run"),
        ({"quantization_config": {"quant_method": "gptq"}}, "auto", "quantized already"),
        ({"model_type": "bert-of-mine"}, "auto", "found: bert-of-mine.*that transformers"),
        ({"architectures": ["NoSuchModel"]}, "auto", "found: NoSuchModel"),
        ({"architectures": ["AutoModel"]}, "auto", "found: AutoModel"),
        ({"architectures": ["_Private"]}, "auto", "found: _Private"),
        ({"architectures": "gone"}, "auto", "Say what the model is for"),
        ({}, "classification", "2 missing.*base model has no trained head"),
        ({"hidden_size": 32, "intermediate_size": 64}, "auto", "weights that BertModel can load"),
        ({"num_hidden_layers": 3}, "base", "missing"),
        ({"num_hidden_layers": 1}, "auto", "unexpected"),
        (
            {"model_type": "t5", "architectures": ["T5Model"], "classifier_dropout": 0.1},
            "auto",
            "an encoder with a",
        ),
        ({"hidden_size": "wide"}, "auto", "the config of a bert model"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "auto", "a model of pixel_values"),
    ],
)
def test_models_that_are_not_taken(tmp_path, changes, task, reason):
    save(tmp_path)
    _config(tmp_path, **changes)
    with pytest.raises(InputError, match=reason):
        _load(tmp_path, task)


def _break_index(folder, name):
    path = folder / "model.safetensors.index.json"
    value = json.loads(path.read_text())
    value["weight_map"] = dict.fromkeys(value["weight_map"], name)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "none.safetensors", "config.json"])
def test_an_index_may_only_name_shards_beside_it(tmp_path, name):
    save(tmp_path, shard="8KB")
    _break_index(tmp_path, name)
    with pytest.raises(InputError, match=r"a path in the model's folder|missing, or no safetensors"):
        read_transformers_folder(tmp_path)


def test_pickled_weights_are_refused_with_a_remedy(tmp_path):
    save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    _load(tmp_path)  # safetensors are there: the pickle is not looked at
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"found: pytorch_model.bin.*never read.*save_pretrained"):
        read_transformers_folder(tmp_path)


def test_other_folders_that_are_not_taken(tmp_path):
    with pytest.raises(InputError, match="is no transformers model"):
        read_transformers_folder(tmp_path)
    save_embedder(tmp_path / "dense")
    path = tmp_path / "dense" / "modules.json"
    path.write_text(path.read_text().replace("Normalize", "Dense"))
    with pytest.raises(InputError, match="found: Transformer -> Pooling -> Dense"):
        read_transformers_folder(tmp_path / "dense")
    path.write_text(path.read_text().replace("models.Dense", "models.Normalize").replace("1_Pooling", "../x"))
    with pytest.raises(InputError, match="a path in the model's folder"):
        read_transformers_folder(tmp_path / "dense")
    save_embedder(tmp_path / "last", pooling={"pooling_mode_lasttoken": True})
    with pytest.raises(InputError, match="found: pooling_mode_lasttoken; wanted: one of mean"):
        read_transformers_folder(tmp_path / "last")
    save(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="Merge it first"):
        read_transformers_folder(tmp_path / "adapter")


def test_without_the_library_the_error_names_what_to_install(tmp_path, monkeypatch):
    save(tmp_path)

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    folder = read_transformers_folder(tmp_path)  # needs no library
    monkeypatch.setattr(library.importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'airflow-model-deploy\[hf\]'"):
        load_transformers(folder, "auto")


def test_the_sha256_covers_what_counts_and_nothing_else(tmp_path):
    save(tmp_path)
    (tmp_path / "vocab.txt").write_text("a")
    first = read_transformers_folder(tmp_path).sha256
    (tmp_path / "README.md").write_text("changed")
    assert read_transformers_folder(tmp_path).sha256 == first
    sha256sum = str(shutil.which("sha256sum"))
    listing = subprocess.run(
        [sha256sum, "config.json", "model.safetensors", "vocab.txt"],
        cwd=tmp_path, capture_output=True, check=True,
    ).stdout  # fmt: skip
    of_listing = subprocess.run([sha256sum], input=listing, capture_output=True, check=True).stdout
    assert of_listing.decode().split()[0] == first
    (tmp_path / "vocab.txt").write_text("b")
    assert read_transformers_folder(tmp_path).sha256 != first


def test_of_a_remote_folder_only_what_counts_is_fetched():
    listed = [
        "config.json", "model.safetensors", "pytorch_model.bin", "modeling.py", "vocab.txt", "1_Pooling/config.json",
        "onnx/model.onnx", "onnx/config.json", "README.md", "modules.json",
    ]  # fmt: skip
    found = wanted_files(listed, lambda _: [{"path": ""}, {"path": "1_Pooling"}])
    assert found == ["config.json", "model.safetensors", "vocab.txt", "1_Pooling/config.json", "modules.json"]


def test_example_tokens_are_the_models_own_and_show_padding():
    config = make("BertModel").config.to_dict()
    found = token_inputs(config)
    assert found["input_ids"].max() < 64
    assert found["input_ids"].dtype == found["attention_mask"].dtype == np.int64
    assert 0 in found["attention_mask"][1]
    assert found["attention_mask"][0].all()
