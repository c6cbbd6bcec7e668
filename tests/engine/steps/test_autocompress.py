"""Compression under a budget, from a trained model to a verified artifact and its plan."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.compression import weighted_nodes
from airflow_model_deploy.engine.steps import autocompress, planning
from tests.conftest import USER_CODE
from tests.flows.flow import Flow

KEYS = {
    "schema_version", "model", "metric", "higher_is_better", "budget", "structure", "formats", "predicted", "verified",
    "reason", "candidates", "sensitivity", "loss_name",
}  # fmt: skip
VERIFIED = {
    "loss", "quality", "baseline_quality", "drop", "size_bytes", "latency_ms", "baseline_size_bytes",
    "baseline_latency_ms",
}  # fmt: skip
CANDIDATE = {"name", "size_bytes", "latency_ms", "quality", "drop", "loss", "within_budget", "chosen"}
LAYER = {"layer", "op", "elements", "losses", "milliseconds", "bytes", "chosen", "bits"}


def data(module, **options):
    return {"loader": {"path": f"{module}:load", "options": options}, "version": "1"}


CNN = {"data": data("other_cnn"), "fit": {"path": "other_cnn:fit"}}
TOY = {"data": data("toy_data"), "fit": {"path": "toy_model:fit"}}
# The size decides, not the clock: which plan is the fastest may differ from run to run.
FORMATS = {"data": data("toy_data"), "structure": "none", "budget": {"max_drop": 50.0}, "objective": "size"}


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A store with a trained CNN and a trained perceptron; other people's modules on the path."""
    folder = tmp_path_factory.mktemp("autocompress")
    shutil.copytree(USER_CODE, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    before = list(sys.path)
    sys.path.insert(0, str(folder / "code"))
    flow = Flow(f"file://{folder}/store")
    cnn = {"factory": {"path": "other_cnn:build", "options": {"channels": 16}}, "epochs": 3, "threads": 1}
    flow.ok("cnn", "train", {**CNN, **cnn, "name": "cnn"})
    flow.ok(
        "toy",
        "train",
        {**TOY, "factory": {"path": "toy_model:build"}, "name": "toy", "epochs": 60, "threads": 1},
    )
    flow.ok("net", "ingest", {"source": onnx_file(folder / "net.onnx"), "name": "net"})
    yield flow
    sys.path[:] = before
    for path in USER_CODE.glob("*.py"):
        sys.modules.pop(path.stem, None)


def onnx_file(path):
    import other_onnx

    other_onnx.write(path, opset=17)
    return str(path)


@pytest.fixture(scope="module")
def small_cnn(flow):
    """The CNN with its structure cut, within a loose budget."""
    spec = {
        **CNN,
        "budget": {"max_drop": 8.0},
        "objective": "size",
        "ratios": [0.3],
        "recovery_epochs": 2,
        "round_to": 4,
    }
    return spec, flow.ok("small cnn", "autocompress", spec, model="cnn")


@pytest.fixture(scope="module")
def small_toy(flow):
    """The perceptron with formats for its layers."""
    return FORMATS, flow.ok("small toy", "autocompress", FORMATS, model="toy")


def plan_of(flow, stage):
    return json.loads((flow.folder(stage) / "plan.json").read_text())


def model_of(flow, stage):
    return flow.folder(stage) / "model.onnx"


def outputs(path, feed, batch=16):
    """Its answers in batches: what dynamic formats answer depends on the samples that come together."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = range(0, len(next(iter(feed.values()))), batch)
    parts = [session.run(None, {name: a[i : i + batch] for name, a in feed.items()}) for i in rows]
    names = [output.name for output in session.get_outputs()]
    return {
        name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)
    }


def forget(flow, *names):
    """Forget results, and the artifacts behind them, but no choices."""
    root = Path(flow.store.removeprefix("file://"))
    shutil.rmtree(root / "cache" / "autocompress")
    for name in names:
        shutil.rmtree(root / "artifacts" / flow.results[name].artifact.digest.replace(":", "-"))


def no_search(*_, **__):
    raise AssertionError("searched again")


def test_the_plan_says_everything_that_readers_of_it_expect(flow, small_cnn):
    _, result = small_cnn
    plan = plan_of(flow, "small cnn")
    assert set(plan) >= KEYS
    assert set(plan["verified"]) >= VERIFIED
    assert set(plan["predicted"]) == {"loss", "size_bytes", "latency_ms"}
    assert all(set(one) == CANDIDATE for one in plan["candidates"])
    assert all(set(one) == LAYER for one in plan["sensitivity"])
    assert (plan["schema_version"], plan["model"], plan["metric"]) == (1, "cnn", "accuracy")
    assert plan["budget"] == {"max_drop": 8.0, "max_size_bytes": None, "max_latency_ms": None}
    assert plan["structure"] == {
        "method": "channels", "ratio": 0.3, "norm": "l2", "round_to": 4, "recovery_epochs": 2
    }  # fmt: skip
    chosen = [one for one in plan["candidates"] if one["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["within_budget"]
    assert chosen[0]["size_bytes"] == plan["verified"]["size_bytes"]
    assert {one["layer"]: one["chosen"] for one in plan["sensitivity"] if one["chosen"] != "fp32"} == plan[
        "formats"
    ]
    assert set(plan["formats"].values()) == {"int8-static"}
    short = result.details["plan"]
    assert short["layers"] == {"int8-static": len(plan["formats"])}
    assert short == {k: v for k, v in plan.items() if k not in ("sensitivity", "formats")} | {
        "layers": short["layers"]
    }


def test_the_model_is_what_the_plan_verified(flow, small_cnn):
    import other_cnn

    _, result = small_cnn
    verified, path = plan_of(flow, "small cnn")["verified"], model_of(flow, "small cnn")
    inputs, labels = other_cnn.load("test")
    quality = float((outputs(path, inputs)["output"].argmax(1) == labels).mean())
    assert verified["quality"] == pytest.approx(quality)
    assert verified["drop"] == pytest.approx(100 * (verified["baseline_quality"] - quality))
    assert verified["drop"] <= 8
    assert verified["size_bytes"] == path.stat().st_size < 0.5 * verified["baseline_size_bytes"]
    assert result.metrics["quality"] == verified["quality"]
    assert result.metrics["drop"] == verified["drop"]
    assert result.metrics["model_bytes"] == path.stat().st_size


def test_the_same_again_is_a_cache_hit(flow, small_cnn):
    spec, result = small_cnn
    again = flow.ok("again", "autocompress", spec, model="cnn")
    assert again.cached
    assert again.artifact == result.artifact


@pytest.mark.parametrize(("stage", "source"), [("small cnn", "cnn"), ("small toy", "toy")])
def test_a_retry_follows_the_pinned_choice_to_the_same_bytes(
    stage, source, flow, small_cnn, small_toy, monkeypatch
):
    spec, result = {"small cnn": small_cnn, "small toy": small_toy}[stage]
    forget(flow, stage)
    monkeypatch.setattr(autocompress, "search_formats", no_search)
    again = flow.ok("again", "autocompress", spec, model=source)
    assert not again.cached
    assert again.artifact == result.artifact


def test_another_metric_function_means_another_search(tmp_path, user_code, monkeypatch):
    flow = Flow(f"file://{tmp_path}/store")
    spec = {**FORMATS, "formats": ["int8-dynamic"], "metric": {"path": "own_metric:share"}}
    text = (
        "def share(outputs, targets):\n    return float((outputs['output'].argmax(1) == targets).mean()){}\n"
    )
    (user_code / "own_metric.py").write_text(text.format(""))
    flow.ok(
        "toy",
        "train",
        {**TOY, "factory": {"path": "toy_model:build"}, "name": "toy", "epochs": 5, "threads": 1},
    )
    flow.ok("one", "autocompress", spec, model="toy")
    (user_code / "own_metric.py").write_text(text.format(" / 2"))
    sys.modules.pop("own_metric")
    sys.path[:] = [path for path in sys.path if "/artifacts/sha256-" not in path]
    flow.ok("two", "autocompress", spec, model="toy")
    first, second = (plan_of(flow, name)["verified"]["quality"] for name in ("one", "two"))
    assert second == pytest.approx(first / 2)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"max_size_bytes": 100}, "bytes, allowed are 100"),
        ({"max_latency_ms": 1e-6}, "ms a request, allowed are 1e-06"),
        ({"max_drop": 0.0, "max_size_bytes": 100}, "wanted: max_drop 0.0, max_size_bytes 100"),
    ],
)
def test_a_budget_that_nothing_keeps_names_the_best(budget, reason, flow):
    failed = flow.run(
        "failed", "autocompress", {**FORMATS, "budget": budget, "formats": ["int8-dynamic"]}, model="toy"
    )
    assert failed.status == "failed"
    assert failed.error["type"] == "GateError"
    assert failed.error["permanent"]
    assert "the budget can't be met; found: the best that was reached is " in failed.error["message"]
    assert reason in failed.error["message"]


def test_a_size_that_only_the_smallest_plan_keeps(flow, small_toy):
    """The plan for the fastest model is larger: the smallest is looked for before giving up."""
    wanted = {**FORMATS, "formats": ["int4-weight"], "objective": "latency", "budget": {"max_drop": None}}
    fast = flow.ok("fast", "autocompress", wanted, model="toy")
    every = flow.ok("every", "autocompress", {**wanted, "objective": "size"}, model="toy")
    smallest = every.metrics["model_bytes"]
    assert smallest < every.metrics["baseline_bytes"]
    assert smallest <= fast.metrics["model_bytes"]
    budget = {"max_drop": 50.0, "max_size_bytes": smallest}
    found = flow.ok("kept", "autocompress", {**wanted, "budget": budget}, model="toy")
    assert found.metrics["model_bytes"] <= smallest


def test_another_budget_does_not_measure_the_layers_again(flow, small_toy, monkeypatch):
    spec, first = small_toy
    monkeypatch.setattr(planning, "analyse", no_search)
    tighter = flow.ok("tighter", "autocompress", {**spec, "budget": {"max_drop": 49.0}}, model="toy")
    assert not tighter.cached
    assert plan_of(flow, "tighter")["sensitivity"] == plan_of(flow, "small toy")["sensitivity"]
    assert tighter.metrics["model_bytes"] == first.metrics["model_bytes"]


def test_limits_of_size_and_latency_are_kept(flow, small_toy):
    verified = plan_of(flow, "small toy")["verified"]
    budget = {"max_drop": 50.0, "max_size_bytes": verified["size_bytes"], "max_latency_ms": 1000.0}
    result = flow.ok("limited", "autocompress", {**FORMATS, "budget": budget}, model="toy")
    assert result.metrics["model_bytes"] <= verified["size_bytes"]
    assert all(
        one["within_budget"] == (one["drop"] <= 50 and one["size_bytes"] <= verified["size_bytes"])
        for one in plan_of(flow, "limited")["candidates"]
    )


def test_an_edited_plan_is_built_and_verified(flow, small_cnn, monkeypatch):
    import other_cnn

    spec, _ = small_cnn
    plan = plan_of(flow, "small cnn")
    exported = flow.ok("exported", "export", {}, model="cnn")
    names = [node.name for node in weighted_nodes(model_of(flow, "exported"))]
    edited = {**plan, "structure": None, "formats": {names[1]: "int8-static", names[-1]: "int8-dynamic"}}
    monkeypatch.setattr(autocompress, "search_formats", no_search)
    result = flow.ok("edited", "autocompress", {**spec, "plan": edited}, model="cnn")
    made = plan_of(flow, "edited")
    assert made["formats"] == edited["formats"]
    assert made["structure"] is None
    assert [one["chosen"] for one in made["candidates"]] == [True]
    inputs, labels = other_cnn.load("test")
    quality = float((outputs(model_of(flow, "edited"), inputs)["output"].argmax(1) == labels).mean())
    assert made["verified"]["quality"] == pytest.approx(quality)
    chosen = {one["layer"]: one["chosen"] for one in made["sensitivity"]}
    assert chosen == {layer: edited["formats"].get(layer, "fp32") for layer in chosen}
    kept = {node.name for node in weighted_nodes(model_of(flow, "edited"))}
    assert kept & set(names) == set(names) - set(edited["formats"])
    forget(flow, "edited")
    again = flow.ok("again", "autocompress", {**spec, "plan": edited}, model="cnn")
    assert again.artifact == result.artifact != exported.artifact


def test_an_edited_structure_is_cut(flow, small_cnn):
    spec, result = small_cnn
    plan = plan_of(flow, "small cnn")
    untouched = flow.ok("untouched", "autocompress", {**spec, "plan": plan}, model="cnn")
    assert model_of(flow, "untouched").read_bytes() == model_of(flow, "small cnn").read_bytes()
    plan["structure"]["ratio"], plan["formats"], plan["sensitivity"] = 0.5, {}, "scratched out"
    smaller = flow.ok(
        "smaller", "autocompress", {**spec, "budget": {"max_drop": 100.0}, "plan": plan}, model="cnn"
    )
    assert smaller.metrics["model_bytes"] < 0.6 * untouched.metrics["baseline_bytes"]
    assert plan_of(flow, "smaller")["sensitivity"] == []
    assert result.artifact != smaller.artifact


GIVEN = {"schema_version": 1, "structure": None, "formats": {}}


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ({}, "this is no compression plan"),
        ({"schema_version": 2, "formats": {}}, "schema version 2"),
        ({"schema_version": 1}, "with 'structure' and 'formats'"),
        ({**GIVEN, "formats": ["int8-static"]}, "formats of a plan; found: ['int8-static']"),
        ({**GIVEN, "formats": {"away": "int8-dynamic"}}, "found: node 'away'"),
        ({**GIVEN, "formats": {"*": 8}}, "wanted: an object: node -> format"),
        ({**GIVEN, "structure": {"ratio": 0.5}}, "structure of a plan"),
        ({**GIVEN, "structure": {"method": "channels", "ratio": 7}}, "ratio = 7"),
        ({**GIVEN, "structure": {"method": "away", "ratio": 0.5}}, "method = 'away'"),
        ({**GIVEN, "structure": "channels"}, "structure of a plan"),
    ],
)
def test_plans_that_say_nothing_that_can_be_done(plan, reason, flow):
    failed = flow.run("failed", "autocompress", {**TOY, "plan": plan}, model="toy")
    assert failed.status == "failed"
    assert failed.error["type"] == "InputError"
    assert reason in failed.error["message"]


def test_a_format_that_does_not_exist_or_fit(flow):
    exported = flow.ok("exported", "export", {}, model="cnn")
    name = weighted_nodes(model_of(flow, "exported"))[0].name
    assert exported.artifact
    for wanted, reason in (
        ("int5", "found: int5"),
        ("int4-weight", "wanted: one of fp32, int8-static for it"),
    ):
        failed = flow.run(
            "failed", "autocompress", {**CNN, "plan": {**GIVEN, "formats": {name: wanted}}}, model="cnn"
        )
        assert reason in failed.error["message"]


def test_a_given_plan_that_loses_too_much(flow, small_toy):
    plan = plan_of(flow, "small toy")
    spec = {**FORMATS, "budget": {"max_size_bytes": 10}, "plan": plan}
    failed = flow.run("failed", "autocompress", spec, model="toy")
    assert failed.error["type"] == "GateError"
    assert "bytes, allowed are 10" in failed.error["message"]


@pytest.mark.parametrize("formats", [["int8-static"], ["int8-smooth", "int8-outlier"], ["int4-weight"]])
def test_structure_then_quantize_is_the_same_as_all_at_once(formats, flow):
    spec = {
        **TOY, "budget": {"max_drop": 50.0}, "ratios": [0.5], "recovery_epochs": 10, "round_to": 8, "formats": formats,
        "objective": "size",
    }  # fmt: skip
    flow.ok("at once", "autocompress", spec, model="toy")
    first = flow.ok("first half", "autocompress", {**spec, "through": "structure"}, model="toy")
    assert first.format == "torch"
    quantized = flow.ok("second half", "quantize", {"mode": "plan", "data": TOY["data"]}, model="first half")
    assert model_of(flow, "second half").read_bytes() == model_of(flow, "at once").read_bytes()
    plan = plan_of(flow, "at once")
    assert plan == plan_of(flow, "first half")
    assert plan["structure"]["ratio"] == 0.5
    assert plan["formats"]
    assert quantized.metrics["quality"] == pytest.approx(plan["verified"]["quality"])


def test_a_graph_without_code(flow):
    spec = {"data": data("other_onnx"), "metric": "accuracy:probabilities", "budget": {"max_drop": 3.0}}
    result = flow.ok("graph", "autocompress", spec, model="net")
    plan = plan_of(flow, "graph")
    assert plan["structure"] is None
    assert "nothing was cut: the model is a graph" in plan["reason"]
    assert set(plan["formats"]) <= {"dense/MatMul", "out/MatMul"}
    assert result.metrics["drop"] <= 3
    assert flow.folder("net").joinpath("model.onnx").exists()
    assert {path.name for path in flow.folder("net").iterdir()} == {"model.onnx"}, "nothing is left beside it"


@pytest.mark.parametrize("room", [1.0, 0.01, 0.0])
def test_an_embedder_is_held_to_its_own_answers(room, flow):
    spec = {
        "data": data("other_onnx", labelled=False), "metric": "cosine:probabilities", "budget": {"max_drop": room},
        "formats": ["int8-dynamic", "int4-weight"], "objective": "size",
    }  # fmt: skip
    result = flow.ok("embedder", "autocompress", spec, model="net")
    plan, folder = plan_of(flow, "embedder"), flow.folder("embedder")
    assert plan["loss_name"] == "1 - mean cosine"
    verified = plan["verified"]
    assert verified["baseline_quality"] == 1
    assert verified["drop"] == pytest.approx(100 * verified["loss_held_out"], abs=1e-6)
    import other_onnx

    feed = other_onnx.load("test")[0]
    ours, theirs = (
        outputs(path, feed)["probabilities"].astype(np.float64)
        for path in (folder / "model.onnx", model_of(flow, "net"))
    )
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert 100 * (1 - cosines.mean()) == pytest.approx(verified["drop"], abs=1e-6)
    assert verified["drop"] <= room
    assert bool(plan["formats"]) == {1.0: True, 0.0: False}.get(room, bool(plan["formats"]))
    assert result.metrics["quality"] == verified["quality"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({}, "compression by a budget needs data; found: no data"),
        (
            {"data": data("other_onnx", labelled=False), "metric": "accuracy:probabilities"},
            "found: test data without targets",
        ),
        ({"budget": {"max_drop": -1}}, "budget max_drop"),
        ({"budget": {"most": 1}}, "budget.most"),
        ({"data": data("other_onnx"), "metric": "mae:probabilities", "formats": ["int8-outlier", "int9"]}, "formats"),
        ({"data": data("other_onnx"), "metric": "accuracy:probabilities", "formats": []}, "formats for the layers of"),
        ({"data": data("toy_data")}, "the data's inputs are not the model's"),
        (
            {
                "data": data("other_onnx"), "metric": "accuracy:probabilities",
                "plan": {**GIVEN, "structure": {"method": "channels", "ratio": 0.5}},
            },
            "the plan's structure can't be cut; found: the model is a graph",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(spec, reason, flow):
    failed = flow.run("failed", "autocompress", spec, model="net")
    assert failed.status == "failed"
    assert failed.error["type"] == "InputError"
    assert reason in failed.error["message"]


def test_a_model_that_was_quantized_before(flow, small_toy):
    failed = flow.run("failed", "autocompress", FORMATS, model="small toy")
    assert "can't be compressed any further by a plan" in failed.error["message"]


def test_without_a_limit_to_the_loss_no_targets_are_needed(flow):
    spec = {
        "data": data("other_onnx", labelled=False), "metric": "accuracy:probabilities", "formats": ["int8-dynamic"],
        "budget": {"max_drop": None},
    }  # fmt: skip
    result = flow.ok("unlabelled", "autocompress", spec, model="net")
    assert "quality" not in result.metrics
    assert plan_of(flow, "unlabelled")["verified"]["drop"] is None


def test_nothing_is_written_beside_published_models(flow, small_cnn, small_toy):
    store = Store(flow.store)
    for name in ("cnn", "toy", "small cnn", "small toy"):
        reference = flow.results[name].artifact
        listed = {entry.path for entry in store.manifest(reference).files}
        folder, _ = store.fetch(reference)
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == listed
