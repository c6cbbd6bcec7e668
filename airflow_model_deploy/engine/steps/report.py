"""The report of one run of the flow, put together from the results of its stages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.models import cpu_fingerprint
from airflow_model_deploy.engine.reporting import build_report, write_html
from airflow_model_deploy.engine.steps.environment import versions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TOOLS = ("torch", "torch-pruning", "onnx", "onnxruntime", "numpy", "apache-airflow")
# The stages after which there is another file to deploy.
_MAKES_FILES = ("train", "ingest", "prune", "quantize", "optimize", "build", "package")
_GATE = ("name", "found", "wanted", "passed")


def report_of_run(results: Mapping[str, Mapping[str, Any]], *, run_id: str) -> dict[str, Any]:
    """Build the report from each stage's result (as a task returns it), in the order of the flow.

    The stages test_model, deploy_model and monitor_model must be among them.
    """
    test, deploy, monitor = (results[name] for name in ("test_model", "deploy_model", "monitor_model"))
    quality, baseline = test["metrics"].get("quality"), test["details"].get("baseline_quality")
    golden = deploy["details"]["golden"]
    cpu = cpu_fingerprint()
    return build_report(
        [_stage(name, result) for name, result in results.items()],
        compression={
            "size_ratio": test["metrics"]["size_ratio"],
            "speedup": test["measurements"]["speedup"],
            "throughput_per_s": test["measurements"]["throughput"],
            "baseline_throughput_per_s": test["measurements"]["baseline_throughput"],
            "accuracy_drop_points": _drop(test["metrics"], quality, baseline),
        },
        served={
            "golden_requests": golden["total"],
            "matched": golden["matched"],
            "max_abs_error": golden["max_abs_error"],
            "tolerance": golden["tolerance"],
            "url": deploy["details"]["url"],
        },
        verdict=monitor["details"]["verdict"],
        gates=[{key: gate[key] for key in _GATE} for gate in test["details"]["gates"]],
        environment={**versions(_TOOLS), "CPU": cpu.model, "CPU features": " ".join(cpu.flags)},
        model=test.get("name"),
        run_id=run_id,
    )


def write_run_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write report.json and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    write_html(dict(report), folder / "report.html")


def _stage(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    metrics, measurements = result["metrics"], result["measurements"]
    # An artifact's size counts what travels with the model; where the model's own is known, that is told.
    size = metrics.get("model_bytes", metrics.get("bundle_bytes", result["size_bytes"]))
    digest, parent = (result.get("artifact") or {}).get("digest"), result.get("parent")
    return {
        "stage": name,
        "digest": digest,
        "parent": parent if parent != digest else None,  # a stage may pass on what it was given
        "size_bytes": size if result["step"] in _MAKES_FILES else None,
        "accuracy": metrics.get("quality") if metrics.get("metric") == "accuracy" else None,
        "latency_ms": measurements.get("latency_ms"),
        "duration_s": result["duration_s"],
        "cached": result["cached"],
    }


def _drop(metrics: Mapping[str, Any], quality: float | None, baseline: float | None) -> float | None:
    if quality is None or baseline is None or metrics.get("metric") != "accuracy":
        return None
    return (baseline - quality) * 100
