"""The flow on a small model of a user's own: every pure step, its cache, its lineage; then deployed and watched."""

from __future__ import annotations

import json

import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.engine.steps.service import service_status, stop_service
from airflow_model_deploy.engine.steps.verify import verify

FACTORY = {"path": "toy_model:build", "options": {"width": 64}}
FIT = {"path": "toy_model:fit"}
DATA = {"loader": {"path": "toy_data:load"}, "fingerprint": {"path": "toy_data:fingerprint"}}
CODE_MODULES = ("toy_model", "toy_data")


class Flow:
    """Runs steps on one store and remembers their results by stage."""

    def __init__(self, store: str) -> None:
        self.store, self.results = store, {}

    def run(self, stage, step, spec, **inputs):
        request = StepRequest(
            step=step,
            spec=spec,
            inputs={role: self.results[name].artifact for role, name in inputs.items()},
            store=self.store,
        )
        self.results[stage] = result = run_request(request)
        return result

    def train(self, **changes):
        return self.run(
            "train",
            "train",
            {"name": "toy", "factory": FACTORY, "fit": FIT, "data": DATA, "epochs": 60, **changes},
        )

    def until_package(self, quantization="dynamic"):
        self.train()
        self.run(
            "compress",
            "prune",
            {"method": "channels", "ratio": 0.5, "fit": FIT, "recovery_epochs": 40, "data": DATA},
            model="train",
        )
        self.run("quantize", "quantize", {"mode": quantization, "data": DATA}, model="compress")
        self.run("optimize", "optimize", {"data": DATA}, model="quantize")
        self.run("build", "build", {"data": DATA}, model="optimize", baseline="train")
        self.run("test", "test", {"data": DATA, "max_quality_drop": 5}, servable="build", baseline="train")
        self.run("prepare", "prepare", {"latency_ms": 500}, servable="build", evaluation="test")
        self.run("package", "package", {}, servable="build", plan="prepare")


@pytest.fixture
def flow(tmp_path, user_code):
    return Flow(f"file://{tmp_path}/store")


def _ok(result):
    assert result.status == "succeeded", result.error
    return result


def test_the_whole_flow_ends_in_a_watched_service_and_a_verifiable_chain(flow, tmp_path, unused_port):
    flow.until_package()
    for result in flow.results.values():
        assert not _ok(result).cached
    root = str(tmp_path / "host")
    try:
        deployed = _ok(flow.run("deploy", "deploy", {"root": root, "port": unused_port}, release="package"))
        watched = _ok(
            flow.run(
                "monitor", "monitor", {"root": root, "window_s": 1, "interval_s": 0.02}, release="package"
            )
        )
        status = service_status(tmp_path / "host", "toy")
        assert status["live"] == deployed.details["revision"] == watched.details["revision"]
        assert deployed.details["golden"]["matched"] == deployed.details["golden"]["total"] == 16
        assert watched.details["verdict"]["status"] == "healthy", watched.details["verdict"]
        again = _ok(flow.run("deploy", "deploy", {"root": root, "port": unused_port}, release="package"))
        assert again.details["changed"] is False
        assert not again.cached  # acting steps observe, they are never reused
    finally:
        stop_service(tmp_path / "host", "toy")

    release = flow.results["package"].artifact
    checked = verify(release.uri)
    assert {a["step"] for a in checked["artifacts"] if a["step"]} >= {
        "train", "export", "prune", "quantize", "optimize", "build", "test", "prepare", "package",
    }  # fmt: skip
    assert checked["artifacts"][0]["digest"] == release.digest
    assert flow.results["compress"].metrics["parameters"] < flow.results["train"].metrics["parameters"] / 2
    assert flow.results["test"].metrics["quality"] >= 0.95


def test_a_second_run_finds_everything_and_computes_nothing(flow, user_code):
    flow.until_package()
    digests = {stage: _ok(result).artifact.digest for stage, result in flow.results.items()}
    flow.until_package()
    assert all(result.cached for result in flow.results.values())
    assert {stage: result.artifact.digest for stage, result in flow.results.items()} == digests


def test_without_its_cache_the_same_work_gives_the_same_digests(flow, tmp_path):
    flow.until_package()
    digests = {stage: _ok(result).artifact.digest for stage, result in flow.results.items()}
    for path in (tmp_path / "store" / "cache").rglob("*.json"):
        path.unlink()
    flow.until_package()
    assert not any(result.cached for result in flow.results.values())
    assert {stage: result.artifact.digest for stage, result in flow.results.items()} == digests


def test_changed_data_retrains_and_data_without_a_fingerprint_is_never_reused(flow, tmp_path):
    version = tmp_path / "version"
    version.write_text("monday")
    data = {**DATA, "loader": {"path": "toy_data:load", "options": {"version_file": str(version)}}}
    assert not _ok(flow.train(data=data, epochs=2)).cached
    assert _ok(flow.train(data=data, epochs=2)).cached
    version.write_text("tuesday")
    assert not _ok(flow.train(data=data, epochs=2)).cached
    unknown = {"loader": DATA["loader"]}
    assert not _ok(flow.train(data=unknown, epochs=2)).cached
    assert not _ok(flow.train(data=unknown, epochs=2)).cached


def test_changed_code_behind_the_same_import_path_runs_again(flow, user_code, forget_modules):
    first = _ok(flow.train(epochs=2))
    (user_code / "toy_model.py").write_text(
        (user_code / "toy_model.py").read_text().replace("lr=1e-2", "lr=1e-3")
    )
    forget_modules(CODE_MODULES)
    second = _ok(flow.train(epochs=2))
    assert not second.cached
    assert second.artifact.digest != first.artifact.digest


def test_a_cached_result_whose_artifact_was_damaged_runs_again(flow):
    first = _ok(flow.train(epochs=2))
    folder, _ = Store(flow.store).fetch(first.artifact)
    (folder / "weights.safetensors").unlink()
    second = _ok(flow.train(epochs=2))
    assert not second.cached
    assert second.artifact.digest == first.artifact.digest
    Store(flow.store).fetch(second.artifact)


def test_a_gate_that_is_not_kept_fails_for_good_and_says_which(flow):
    flow.train()
    flow.run("quantize", "quantize", {"mode": "dynamic", "data": DATA}, model="train")
    flow.run("build", "build", {"data": DATA}, model="quantize", baseline="train")
    result = flow.run(
        "test",
        "test",
        {"data": DATA, "min_size_ratio": 100, "min_quality": 0.999999},
        servable="build",
        baseline="train",
    )
    assert result.status == "failed"
    assert result.error["type"] == "GateError"
    assert result.error["permanent"] is True
    assert "min_size_ratio failed" in result.error["message"]
    assert "min_value(accuracy) failed" in result.error["message"]
    assert result.artifact is None


@pytest.mark.parametrize("mode", ["static", "dynamic", "none"])
def test_unstructured_pruning_keeps_its_zeros_through_recovery_and_quantization(flow, mode):
    import onnx
    from onnx import numpy_helper

    flow.train()
    pruned = _ok(
        flow.run(
            "compress",
            "prune",
            {"method": "magnitude-ratio", "ratio": 0.5, "fit": FIT, "recovery_epochs": 10, "data": DATA},
            model="train",
        )
    )
    assert pruned.metrics["zero_fraction"] == pytest.approx(0.5, abs=1e-3)
    quantized = _ok(flow.run("quantize", "quantize", {"mode": mode, "data": DATA}, model="compress"))
    graph = onnx.load(Store(flow.store).fetch(quantized.artifact)[0] / "model.onnx").graph
    weights = [numpy_helper.to_array(t) for t in graph.initializer if len(t.dims) == 2]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    assert zeros >= 0.5 - 1e-3


def test_weights_and_an_artifact_can_be_ingested(flow, tmp_path, user_code):
    import toy_model
    from safetensors.torch import save_file

    save_file(toy_model.build().state_dict(), tmp_path / "toy.safetensors")
    spec = {"name": "toy", "source": str(tmp_path / "toy.safetensors"), "factory": FACTORY, "data": DATA}
    first = _ok(flow.run("ingest", "ingest", spec))
    assert first.format == "torch"
    signature = Store(flow.store).manifest(first.artifact).description.signature
    assert [t.to_json() for t in signature.inputs] == [
        {"name": "points", "shape": ["batch", 2], "dtype": "float32"}
    ]
    again = _ok(
        flow.run("again", "ingest", {"name": "toy", "source": first.artifact.uri, "factory": FACTORY})
    )
    assert again.artifact == first.artifact
    refused = flow.run("refused", "ingest", {**spec, "sha256": "0" * 64})
    assert refused.error["integrity"] is True
    exported = _ok(flow.run("export", "export", {}, model="ingest"))
    onnx_file = Store(flow.store).fetch(exported.artifact)[0] / "model.onnx"
    taken = _ok(flow.run("onnx", "ingest", {"name": "toy", "source": str(onnx_file), "data": DATA}))
    assert taken.format == "onnx"
    assert taken.metrics["quality"] == first.metrics["quality"]


def test_a_spec_that_is_not_valid_names_every_wrong_field(flow):
    result = flow.run("train", "train", {"name": "Not A Name", "epochs": "many", "surprise": 1})
    assert result.error["permanent"] is True
    for word in ("name", "epochs", "surprise", "factory", "fit", "data"):
        assert word in result.error["message"]


def test_text_that_spells_a_number_is_one(flow):
    assert _ok(flow.train(epochs="2", seed="3")).details["epochs"] == 2


def test_user_code_that_fails_is_told_with_its_own_words(flow):
    result = flow.train(fit={"path": "toy_model:diverge"})
    assert result.status == "failed"
    assert "the loss is NaN" in result.error["message"]
    assert result.error["permanent"] is False


def test_a_step_with_the_wrong_inputs_names_them(flow):
    result = flow.run("prune", "prune", {"data": DATA})
    assert "wanted: model" in result.error["message"]


def test_the_result_file_is_what_the_run_returned(flow):
    request = StepRequest("train", {"name": "toy"}, {}, flow.store, result="runs/x/result.json")
    result = run_request(request)
    assert Store(flow.store).read_json("runs/x/result.json") == json.loads(json.dumps(result.to_json()))


def test_a_model_carries_its_factorys_code_to_steps_that_name_none(
    flow, user_code, forget_modules, monkeypatch
):
    trained = _ok(flow.train(epochs=2))
    (user_code / "toy_model.py").unlink()  # nothing but the store has it now
    forget_modules(CODE_MODULES)
    quantized = _ok(flow.run("quantize", "quantize", {"mode": "dynamic", "data": DATA}, model="train"))
    exported = _ok(flow.run("export", "export", {}, model="train"))
    assert exported.cached  # the very one that quantize asked for
    code = Store(flow.store).manifest(trained.artifact).description.parents["code"]
    chain = {a["digest"]: a for a in verify(quantized.artifact.uri)["artifacts"]}
    assert chain[code]["kind"] == "code"


@pytest.mark.parametrize("factory", [None, {"path": "toy_model:other"}])
def test_naming_an_artifact_does_not_choose_what_is_imported(flow, factory):
    trained = _ok(flow.train(epochs=2))
    result = flow.run("ingest", "ingest", {"name": "toy", "source": trained.artifact.uri, "factory": factory})
    assert "not what the Dag's author has listed; found: toy_model:build" in result.error["message"]
    assert result.error["permanent"] is True


def test_only_a_model_of_this_store_is_taken_in(flow, tmp_path):
    trained = _ok(flow.train(epochs=2))
    code = Store(flow.store).manifest(trained.artifact).description.parents["code"]
    other = flow.run("ingest", "ingest", {"name": "toy", "source": Store(flow.store).reference(code).uri})
    assert "is no model; found: a code" in other.error["message"]
    elsewhere = trained.artifact.uri.replace(str(tmp_path), f"{tmp_path}/elsewhere")
    assert (
        "another store" in flow.run("there", "ingest", {"name": "toy", "source": elsewhere}).error["message"]
    )


def test_a_model_of_another_name_cannot_slip_in(flow):
    trained = _ok(flow.train(epochs=2))
    spec = {"name": "other", "source": trained.artifact.uri, "factory": FACTORY}
    result = flow.run("ingest", "ingest", spec)
    assert "is another model; found: toy; wanted: other" in result.error["message"]


@pytest.mark.parametrize(
    "source",
    [
        "https://example.com/model.onnx",
        "reference://model.onnx::file:///etc/refs.json/model.onnx",
        "simplecache::file:///etc/model.onnx",
        "s3://bucket/model.onnx",
    ],
)
def test_a_source_is_not_read_from_wherever_somebody_names(flow, source):
    result = flow.run("ingest", "ingest", {"name": "toy", "source": source})
    assert result.error["permanent"] is True
    assert (
        "is of a kind that isn't read" in result.error["message"]
        or "no model file at" in result.error["message"]
    )


def test_a_fit_that_trains_another_module_is_refused(flow, user_code):
    (user_code / "toy_model.py").write_text(
        (user_code / "toy_model.py").read_text()
        + "\n\ndef fit_a_copy(model, inputs, targets, *, epochs, progress, seed=0):\n"
        "    import copy\n    other = copy.deepcopy(model)\n"
        "    fit(other, inputs, targets, epochs=epochs, progress=progress)\n    return other\n"
    )
    result = flow.train(fit={"path": "toy_model:fit_a_copy"}, epochs=1)
    assert result.status == "failed"
    assert result.artifact is None
    assert "returned another model" in result.error["message"]
