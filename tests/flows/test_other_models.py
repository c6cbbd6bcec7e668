"""Models of other people, from their files to a running service: each is two or three lines of configuration."""

from __future__ import annotations

import hashlib
import importlib
import socket

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from airflow_model_deploy.config import CompressionConfig, DataSource, GateConfig, ModelCode, UserFunction
from airflow_model_deploy.engine.probing import Client
from airflow_model_deploy.engine.steps.service import service_status, stop_service
from tests.flows.flow import Flow


def code(module, **more):
    """The code of a model whose author calls things build, fit and load."""
    return ModelCode(
        factory=UserFunction(f"{module}:build"),
        fit=UserFunction(f"{module}:fit"),
        data=DataSource(UserFunction(f"{module}:load"), version="1"),
        **more,
    )


# name -> code, compression, gates, epochs
MODELS = {
    "cnn": (
        code("other_cnn"),
        CompressionConfig(method="channels", ratio=0.5, recovery_epochs=4, quantization="static"),
        GateConfig(max_quality_drop=2, min_size_ratio=5),
        5,
    ),
    "multi": (
        code("other_multi", metric=UserFunction("other_multi:cost")),
        CompressionConfig(method="channels", ratio=0.25, recovery_epochs=40, quantization="dynamic"),
        GateConfig(max_quality_drop=0.1, min_quality=0.5),
        80,
    ),
    "lstm": (
        code("other_lstm", dynamic={"wave": {1: "time"}}),
        CompressionConfig(method="none", quantization="dynamic"),
        GateConfig(max_quality_drop=3, min_size_ratio=2),
        30,
    ),
    "transformer": (
        code("other_transformer", dynamic={"tokens": {1: "sequence"}}),
        CompressionConfig(method="magnitude-ratio", ratio=0.3, recovery_epochs=2, quantization="dynamic"),
        GateConfig(max_quality_drop=3, min_size_ratio=2),
        6,
    ),
    "mlp": (
        code("other_mlp", metric="rmse"),
        CompressionConfig(method="channels", ratio=0.5, recovery_epochs=60, quantization="static"),
        GateConfig(max_quality_drop=3),
        120,
    ),
}


def accuracy(outputs, targets):
    return float(np.mean(outputs["output"].argmax(1) == targets))


def root_mean_square(outputs, targets):
    return float(np.sqrt(np.mean((outputs["output"].astype(np.float64)[:, 0] - targets) ** 2)))


def cost(outputs, targets):
    wrong = float((outputs["kind"].argmax(1) != targets["kind"]).mean())
    return wrong + float(np.abs(outputs["value"][:, 0] - targets["value"]).mean())


@pytest.fixture
def flow(tmp_path, user_code):
    return Flow(f"file://{tmp_path}/store")


@pytest.fixture
def service(flow, tmp_path):
    """Put a packaged release into service; gives a client of it."""
    stack = []

    def start(name):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        stack.append(name)
        found = flow.ok(
            "deployed", "deploy", {"root": str(tmp_path / "host"), "port": port}, release="release"
        )
        golden = found.details["golden"]
        assert golden["matched"] == golden["total"] == 16
        assert service_status(tmp_path / "host", name)["live"] == found.details["revision"]
        client = Client(f"http://127.0.0.1:{port}", name)
        stack.append(client)
        return client

    yield start
    for item in stack:
        if isinstance(item, str):
            stop_service(tmp_path / "host", item)
        else:
            item.close()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_becomes_a_service_that_is_as_good_as_its_test_said(name, flow, service):
    code, compression, gates, epochs = MODELS[name]
    flow.take_in(name, code, epochs=epochs)
    flow.until_package(code, compression, gates)
    client = service(name)

    inputs, targets = importlib.import_module(f"other_{name}").load("test")
    found = {"mlp": root_mean_square, "multi": cost}.get(name, accuracy)(client.infer(inputs), targets)
    # Dynamic quantization takes its ranges from a whole batch: another batch, slightly other answers.
    assert found == pytest.approx(flow.results["tested"].metrics["quality"], rel=0.02, abs=0.02)
    if code.dynamic:
        _answers_at_other_lengths(flow, client, name)


def _answers_at_other_lengths(flow, client, name):
    """Shorter and longer than all data was, against the pruned model in torch itself."""
    from airflow_model_deploy.engine.models import load_torch_model, resolve

    module = importlib.import_module(f"other_{name}")
    model = load_torch_model(flow.folder("pruned"), resolve)
    for length in (7, 33):
        inputs, _ = module.load("test", length=length)
        few = {key: array[:40] for key, array in inputs.items()}
        answer = client.infer(few)["output"]
        with torch.no_grad():
            wanted = model(**{key: torch.from_numpy(array) for key, array in few.items()}).numpy()
        assert np.mean(answer.argmax(1) == wanted.argmax(1)) >= 0.9
    assert client.metadata()["inputs"][0]["shape"][:2] == [-1, -1]


NOTHING_NEEDED = CompressionConfig(method="none", quantization="dynamic")
NO_QUALITY = GateConfig(max_quality_drop=None)


def test_an_onnx_file_alone_becomes_a_service_that_says_what_was_not_measured(flow, service, tmp_path):
    importlib.import_module("other_onnx").write(tmp_path / "theirs.onnx", opset=13)
    flow.take_in("theirs", None, source=tmp_path / "theirs.onnx")
    flow.until_package(None, NOTHING_NEEDED, NO_QUALITY)
    answer = service("theirs").infer({"float_input:0": np.ones((3, 6), np.float32)})

    assert answer["probabilities"].sum(1) == pytest.approx(1, abs=1e-5)
    assert answer["label"].tolist() == answer["probabilities"].argmax(1).tolist()
    results = flow.results
    assert results["servable"].metrics["golden_source"] == "random inputs by the signature"
    for stage in ("quantized", "optimized", "tested"):
        assert results[stage].details["not_measured"] == "quality: no data was given"
        assert results[stage].details["inputs"] == "random inputs by the signature"
        assert "quality" not in results[stage].metrics
    assert results["tested"].measurements["latency_ms"] > 0


def test_an_onnx_file_bound_to_a_batch_is_quantized_with_data_and_served_in_that_batch(flow, tmp_path):
    importlib.import_module("other_onnx").write(tmp_path / "theirs.onnx", opset=17, batch=4)
    code = ModelCode(
        data=DataSource(UserFunction("other_onnx:load"), version="1"), metric="accuracy:probabilities"
    )
    flow.take_in("theirs", code, source=tmp_path / "theirs.onnx")
    flow.until_package(code, CompressionConfig(method="none", quantization="static"), GateConfig(2.0))
    assert flow.results["tested"].metrics["quality"] >= 0.98
    assert flow.results["servable"].metrics["golden_source"] == "test samples"
    # 200 samples, of which 16 requests of 4 are golden.
    assert "136 test samples" in (flow.folder("servable") / "golden.json").read_text()


def test_what_an_onnx_file_alone_can_not_have_is_refused_with_what_to_do(flow, tmp_path):
    importlib.import_module("other_onnx").write(tmp_path / "theirs.onnx")
    flow.take_in("theirs", None, source=tmp_path / "theirs.onnx")

    def refusal(step, spec, **inputs):
        result = flow.run("refused", step, spec, **inputs)
        assert result.error["permanent"] is True
        return result.error["message"]

    message = refusal("prune", {"method": "channels"}, model="original")
    assert "a graph that no training code can recover" in message
    assert "Choose method 'none'" in message
    message = refusal("quantize", {"mode": "static"}, model="original")
    assert "static quantization needs data" in message
    assert "choose mode 'dynamic'" in message
    flow.ok("servable", "build", {}, model="original", baseline="original")
    message = refusal("test", {"min_quality": 0.9}, servable="servable", baseline="original")
    assert "max_quality_drop and min_quality set, but no data" in message
    assert "set max_quality_drop and min_quality to None" in message
    unlabelled = {"loader": {"path": "other_onnx:load", "options": {"labelled": False}}}
    message = refusal("test", {"data": unlabelled}, servable="servable", baseline="original")
    assert "test data without targets" in message


def test_weights_of_either_kind_are_ingested_and_others_refused(flow, tmp_path, user_code):
    code = MODELS["mlp"][0]
    module = importlib.import_module("other_mlp")
    torch.manual_seed(0)
    state = module.build().state_dict()
    torch.save(state, tmp_path / "weights.pt")
    save_file(state, tmp_path / "weights.safetensors")
    save_file(module.build(width=48).state_dict(), tmp_path / "narrow.safetensors")

    sha256 = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
    first = flow.take_in("mlp", code, source=tmp_path / "weights.pt", sha256=sha256)
    second = flow.take_in("mlp", code, source=tmp_path / "weights.safetensors")
    assert first.metrics["quality"] == second.metrics["quality"] > 0
    assert first.metrics["higher_is_better"] is False

    with pytest.raises(AssertionError, match=r"is not the one asked for.*integrity': True"):
        flow.take_in("mlp", code, source=tmp_path / "weights.pt", sha256="0" * 64)
    with pytest.raises(
        AssertionError, match=r"layers.1.weight \(48, 10\) for \(64, 10\).*belong to this factory"
    ):
        flow.take_in("mlp", code, source=tmp_path / "narrow.safetensors")


def test_a_gate_on_an_error_refuses_a_rise_and_not_a_fall(flow):
    code = MODELS["mlp"][0]
    data = {"data": {"loader": {"path": "other_mlp:load"}, "version": "1"}, "metric": "rmse"}
    good = flow.take_in("mlp", code, epochs=60)
    ruin = {"method": "magnitude-ratio", "ratio": 0.9}
    ruined = flow.ok("pruned", "prune", {**data, **ruin}, model="original")
    assert ruined.metrics["quality"] > good.metrics["quality"] + 5
    flow.ok("quantized", "quantize", {**data, "mode": "none"}, model="pruned")
    flow.ok("servable", "build", {"data": data["data"]}, model="quantized", baseline="original")
    refused = flow.run(
        "tested",
        "test",
        {**data, "max_quality_drop": 5, "min_quality": 40},
        servable="servable",
        baseline="original",
    )
    assert "max_drop(rmse) failed" in refused.error["message"]
    assert "max_value(rmse) failed" in refused.error["message"]


TRAIN_LSTM = {
    "name": "lstm",
    "factory": {"path": "other_lstm:build"},
    "fit": {"path": "other_lstm:fit"},
    "data": {"loader": {"path": "other_lstm:load"}, "version": "1"},
    "epochs": 1,
}


def test_what_can_not_be_pruned_or_can_not_vary_says_why(flow):
    code = MODELS["lstm"][0]
    flow.take_in("lstm", code, epochs=1)
    result = flow.run("pruned", "prune", {"method": "channels"}, model="original")
    assert "layers whose channels can't be cut: rnn (LSTM)" in result.error["message"]
    assert "magnitude-ratio" in result.error["message"]
    for dynamic, words in (
        ({"wave": {"5": "time"}}, "dynamic dimension 5 of 'wave'"),
        ({"waves": {"1": "time"}}, "no such input"),
        ({"wave": {"2": "features"}}, "can't take another size of 'features'"),
    ):
        result = flow.run("refused", "train", {**TRAIN_LSTM, "dynamic": dynamic})
        assert words in result.error["message"]


def test_data_of_another_type_is_told_with_what_to_do(flow, tmp_path, user_code):
    save_file(importlib.import_module("other_mlp").build().state_dict(), tmp_path / "weights.safetensors")
    doubles = DataSource(UserFunction("other_mlp:load", {"dtype": "float64"}), version="1")
    code = ModelCode(factory=UserFunction("other_mlp:build"), data=doubles, metric="rmse")
    with pytest.raises(AssertionError, match=r"features: float64 \[2, 10\].*astype\('float32'\)"):
        flow.take_in("mlp", code, source=tmp_path / "weights.safetensors")
