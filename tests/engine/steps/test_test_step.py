"""The test of a servable: what is measured beside the original and the champion, and what its gates make of it."""

from __future__ import annotations

import json
import shutil
import sys
import zlib

import numpy as np
import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.evaluation import wilson
from airflow_model_deploy.engine.steps import StepRequest, run_request
from tests.conftest import USER_CODE

DATA = {"loader": {"path": "toy_data:load"}, "fingerprint": {"path": "toy_data:fingerprint"}}
UNLABELLED = {"loader": {"path": "toy_metrics:unlabelled"}, "version": "1"}
METRICS = '''
import numpy as np
import toy_data


def unlabelled(split):
    return toy_data.load(split)[0], None


def margin(outputs, targets):
    """Mean lead of the right class; resampled for its interval."""
    scores = outputs["output"]
    right = scores[np.arange(len(scores)), targets]
    return float((right - scores[np.arange(len(scores)), 1 - targets]).mean())


margin.resamples = 200
'''


class Made:
    """A trained model, its int8 servable, and another one to be the champion."""

    def __init__(self, store):
        self.store = store
        train = {
            "name": "toy", "factory": {"path": "toy_model:build"}, "fit": {"path": "toy_model:fit"}, "data": DATA,
            "epochs": 60,
        }  # fmt: skip
        self.trained = self.run("train", train)
        quantized = self.run("quantize", {"mode": "dynamic", "data": DATA}, model=self.trained)
        self.built = self.run("build", {"data": DATA}, model=quantized, baseline=self.trained)
        better = self.run("quantize", {"mode": "none", "data": DATA}, model=self.trained)
        self.champion = self.run("build", {"data": DATA}, model=better, baseline=self.trained)

    def run(self, step, spec, **inputs):
        result = self.ask(step, spec, **inputs)
        assert result.status == "succeeded", result.error
        return result

    def ask(self, step, spec, **inputs):
        references = {role: one.artifact for role, one in inputs.items()}
        return run_request(StepRequest(step=step, spec=spec, inputs=references, store=self.store))

    def test(self, *, champion=False, ok=True, **spec):
        inputs = {"servable": self.built, "baseline": self.trained}
        if champion:
            inputs["champion"] = self.champion
        ask = self.run if ok else self.ask
        return ask("test", {"data": DATA, "max_quality_drop": 20, **spec}, **inputs)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    code = folder / "code"
    shutil.copytree(USER_CODE, code, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "toy_metrics.py").write_text(METRICS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(code))
        patch.setenv("PYTHONPATH", str(code))
        yield Made(f"file://{folder}/store")
    for name in ("toy_model", "toy_data", "toy_metrics"):
        sys.modules.pop(name, None)


def test_both_models_are_measured_alike(made):
    result = made.test()
    found = result.measurements
    for name in (
        "latency_ms",
        "latency_p95_ms",
        "cpu_ms_p50",
        "cpu_ms_p95",
        "throughput",
        "peak_memory_bytes",
    ):
        assert found[name] > 0, name
        assert found[f"baseline_{name}"] > 0, name
    assert found["cpu_ms_p50"] <= found["cpu_ms_p95"]
    assert found["peak_memory_bytes"] > 20e6
    files, _ = Store(made.store).fetch(made.built.artifact)
    size = len(zlib.compress((files / "model.onnx").read_bytes(), 6))
    assert result.metrics["compressed_bytes"] == found["compressed_bytes"] == size
    assert result.details["baseline_compressed_bytes"] > size
    again = made.test(min_quality=0.5)
    assert again.measurements == found  # pinned: another gate judges the same measurements


def test_quality_and_its_loss_come_with_intervals(made):
    result = made.test()
    right = round(result.metrics["quality"] * 200)
    assert result.metrics["quality_ci"] == list(wilson(right, 200))
    low, high = result.metrics["drop_ci"]
    assert low <= result.metrics["drop"] <= high
    assert result.metrics["drop"] == pytest.approx(
        100 * (result.details["baseline_quality"] - result.metrics["quality"])
    )
    gate = next(g for g in result.details["gates"] if g["name"] == "max_drop(accuracy)")
    assert "95 % interval" in gate["sentence"]
    assert "200 samples" in gate["sentence"]
    assert gate["interval"] == result.metrics["drop_ci"]
    stored = json.loads((Store(made.store).fetch(result.artifact)[0] / "evaluation.json").read_text())
    assert stored["metrics"] == result.metrics


def test_a_confident_gate_refuses_what_the_samples_cannot_show(made):
    quality = made.test().metrics["quality"]
    assert made.test(min_quality=quality).status == "succeeded"
    result = made.test(min_quality=quality, confident=True, ok=False)
    assert result.status == "failed"
    assert result.error["permanent"]
    assert "at the lower bound" in result.error["message"]


def test_the_original_is_compared_with_where_there_are_no_targets(made):
    spec = {"data": UNLABELLED, "max_quality_drop": None}
    result = made.test(**spec, min_agreement=0.9, min_cosine=0.99)
    assert result.metrics["agreement"] >= 0.9
    assert {gate["name"] for gate in result.details["gates"]} == {
        "min_value(cosine with the original)", "min_value(agreement with the original)",
    }  # fmt: skip
    assert "quality" not in result.metrics
    refused = made.test(**spec, min_cosine=1, ok=False)
    assert "cosine with the original is 0.99" in refused.error["message"]
    # A metric that compares with the original needs no targets either.
    by_metric = made.test(data=UNLABELLED, metric="agreement", max_quality_drop=10, min_quality=0.9)
    assert by_metric.metrics["quality"] == result.metrics["agreement"]
    assert by_metric.details["baseline_quality"] == 1


def test_gates_on_fidelity_need_data(made):
    result = made.test(data=None, max_quality_drop=None, min_cosine=0.9, ok=False)
    assert "min_cosine set, but no data" in result.error["message"]
    result = made.test(data=UNLABELLED, min_quality=0.5, ok=False)
    assert "max_quality_drop and min_quality set, but test data without targets" in result.error["message"]


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"max_size_mb": 0.001}, "max_size_bytes failed: size is"),
        ({"max_compressed_mb": 0.001}, "max_compressed_bytes failed: compressed size is"),
    ],
)
def test_sizes_have_gates(made, gate, told):
    assert told in made.test(**gate, ok=False).error["message"]


@pytest.mark.parametrize("metric", ["accuracy", "cosine", {"path": "toy_metrics:margin"}])
def test_the_champion_is_measured_against_the_same_original_and_samples(made, metric):
    result = made.test(metric=metric, champion=True, max_drop_from_champion=20, confident=True)
    name = metric if isinstance(metric, str) else "margin"
    gate = next(g for g in result.details["gates"] if g["name"] == f"max_drop_from_champion({name})")
    assert gate["passed"]
    assert gate["interval"] == result.details["drop_from_champion_ci"]
    # The champion is the fp32 model itself: what is lost against it is what is lost against the original.
    assert result.details["champion_quality"] == pytest.approx(result.details["baseline_quality"], abs=1e-6)
    assert result.details["drop_from_champion"] == pytest.approx(result.metrics["drop"], abs=1e-4)
    low, high = result.details["drop_from_champion_ci"]
    assert low <= result.details["drop_from_champion"] <= high


def test_steps_before_measure_fidelity_against_the_trained_model(made):
    spec = {"data": UNLABELLED, "metric": "cosine"}
    pruned = made.run("prune", {"method": "magnitude-ratio", "ratio": 0.8, **spec}, model=made.trained)
    quantized = made.run("quantize", {"mode": "dynamic", **spec}, model=pruned)
    optimized = made.run("optimize", spec, model=quantized)
    original = made.run("quantize", {"mode": "none", **spec}, model=made.trained)
    assert original.metrics["quality"] == pytest.approx(1, abs=1e-6)
    for result in (pruned, quantized, optimized):
        assert 0 < result.metrics["quality"] < 0.9999, result.step
    assert optimized.metrics["quality"] == pytest.approx(quantized.metrics["quality"], abs=1e-3)


def test_a_step_without_the_original_says_that_it_measured_nothing():
    from airflow_model_deploy.engine.models import Dataset
    from airflow_model_deploy.engine.steps.quality import score
    from airflow_model_deploy.engine.steps.samples import unmeasured

    rows = {"y": np.ones((4, 2))}
    quality = score(rows, Dataset(rows, None), "cosine", lambda path: path)
    assert "quality" not in quality
    assert unmeasured(quality, object()) == {
        "not_measured": "quality: cosine compares with the original model, which this step doesn't have at hand"
    }
