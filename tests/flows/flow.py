"""Walks a model through every step, from the objects that a Dag's author writes."""

from __future__ import annotations

from dataclasses import asdict

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.steps import StepRequest, run_request


class Flow:
    """Runs steps on one store and remembers their results by stage."""

    def __init__(self, store):
        self.store, self.results = store, {}

    def run(self, stage, step, spec, **inputs):
        request = StepRequest(
            step=step,
            spec={key: value for key, value in spec.items() if value is not None},
            inputs={role: self.results[name].artifact for role, name in inputs.items()},
            store=self.store,
        )
        self.results[stage] = result = run_request(request)
        return result

    def ok(self, stage, step, spec, **inputs):
        result = self.run(stage, step, spec, **inputs)
        assert result.status == "succeeded", result.error
        return result

    def folder(self, stage):
        return Store(self.store).fetch(self.results[stage].artifact)[0]

    def signature(self, stage):
        return Store(self.store).manifest(self.results[stage].artifact).description.signature

    def take_in(self, name, code, source="", epochs=10, sha256=None):
        """Train, or ingest where a source is named."""
        fields = _fields(code, "factory", "data", "metric", "dynamic") | {"name": name}
        if source:
            return self.ok("original", "ingest", fields | {"source": str(source), "sha256": sha256})
        return self.ok("original", "train", fields | _fields(code, "fit") | {"epochs": epochs, "threads": 1})

    def compress(self, code, compression):
        measured = _fields(code, "data", "metric")
        prune = {
            "method": compression.method,
            "ratio": compression.ratio,
            "recovery_epochs": compression.recovery_epochs,
            "threads": 1,
        }
        self.ok("pruned", "prune", {**measured, **_fields(code, "fit"), **prune}, model="original")
        self.ok("quantized", "quantize", {**measured, "mode": compression.quantization}, model="pruned")

    def until_package(self, code, compression, gates):
        """Prune, quantize, optimize, build, test, prepare, package."""
        measured = _fields(code, "data", "metric")
        self.compress(code, compression)
        self.ok("optimized", "optimize", measured, model="quantized")
        self.ok("servable", "build", _fields(code, "data"), model="optimized", baseline="original")
        request = StepRequest(
            "test",
            {**measured, **asdict(gates)},
            {role: self.results[stage].artifact for role, stage in SERVED.items()},
            self.store,
        )
        self.results["tested"] = tested = run_request(request)
        assert tested.status == "succeeded", tested.error
        self.ok("plan", "prepare", {"latency_ms": 500}, servable="servable", evaluation="tested")
        self.ok("release", "package", {}, servable="servable", plan="plan")


SERVED = {"servable": "servable", "baseline": "original"}


def _fields(code, *names):
    if code is None:
        return {}
    values = {name: getattr(code, name) for name in names}
    plain = {name: v if isinstance(v, (str, dict)) or v is None else asdict(v) for name, v in values.items()}
    return {name: value for name, value in plain.items() if value is not None}
