"""The report of one run of the flow, put together from the results of its stages."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import Reference
from airflow_model_deploy.engine.errors import IntegrityError
from airflow_model_deploy.engine.evaluation import drop_of
from airflow_model_deploy.engine.models import cpu_fingerprint
from airflow_model_deploy.engine.reporting import build_report, write_html
from airflow_model_deploy.engine.steps.environment import versions
from airflow_model_deploy.engine.steps.layout import PLAN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_model_deploy.engine.artifacts import Store

    Results = Mapping[str, Mapping[str, Any]]

_TOOLS = ("torch", "torch-pruning", "onnx", "onnxruntime", "numpy", "apache-airflow")
# The stages after which there is no other file to deploy, and those that measure by requests to a server.
_MAKES_NONE = ("test", "prepare", "deploy", "rollback", "monitor")
_BY_REQUEST = ("test", "package", "deploy", "monitor")
_GATE = ("name", "found", "wanted", "passed", "interval")
# As the report names them -> as the test does.
_COSTS = {
    "compressed_bytes": "compressed_bytes",
    "throughput_per_s": "throughput",
    "cpu_ms": "cpu_ms_p50",
    "latency_ms": "latency_ms",
    "peak_memory_bytes": "peak_memory_bytes",
}
_OUTCOME = ("revision", "action", "result", "reason", "at")
_COUNTED = ("compressed_bytes", "zero_fraction", "zeros_before", "zeros_after")


def report_of_run(
    results: Results,
    *,
    run_id: str,
    plan: Mapping[str, Any] | None = None,
    rollouts: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Build the report from each stage's result (as a task returns it), in the order of the flow.

    A run that ended early has a report, too: what is missing of test_model, deploy_model and monitor_model is null.

    Args:
        results: by the stages' names; those that there are.
        run_id: which run this was.
        plan: the compression plan in full (`plan_of_run` reads it); by default what a stage's result tells of it
            under details["plan"], and no plan where none does.
        rollouts: outcomes as a cluster keeps them, the last one being this run's; by default what the deployment's
            result tells of it under details["outcome"], and none where it doesn't.
    """
    test, deploy, monitor = (results.get(name) for name in ("test_model", "deploy_model", "monitor_model"))
    metrics = test["metrics"] if test else {}
    told = [deploy["details"].get("outcome")] if deploy and rollouts is None else rollouts or ()
    return build_report(
        [_stage(name, result) for name, result in results.items()],
        compression=_compression(test) if test else None,
        served=_served(deploy) if deploy else None,
        verdict=monitor["details"]["verdict"] if monitor else None,
        gates=[{key: gate.get(key) for key in _GATE} for gate in test["details"]["gates"]] if test else (),
        environment=_environment(results),
        model=next((result["name"] for result in results.values() if result.get("name")), None),
        run_id=run_id,
        metric=metrics.get("metric"),
        higher_is_better=bool(metrics.get("higher_is_better", True)),
        plan=_told(results.values()) if plan is None else plan,
        rollouts=[rollout_of(outcome) for outcome in told if outcome],
    )


def rollout_of(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outcome, as a cluster keeps it, as the report takes it."""
    details = dict(outcome.get("details") or {})
    if not isinstance(details.get("golden"), dict):
        details["golden"] = None
    return {**details, **{key: outcome.get(key) for key in _OUTCOME}}


def plan_of_run(results: Results, store: Store) -> dict[str, Any] | None:
    """Read the full plan of a run's compression from the store, verified; None where no stage made one."""
    for result in results.values():
        if result.get("artifact") and (result.get("details") or {}).get("plan"):
            with tempfile.TemporaryDirectory(prefix="model-deploy-plan-") as cache:
                folder, _ = store.fetch(Reference.from_json(result["artifact"]), Path(cache))
                return _read(folder / PLAN)
    return None


def write_run_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write report.json and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, allow_nan=False)
    (folder / "report.json").write_text(text, encoding="utf-8")
    write_html(dict(report), folder / "report.html")


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise IntegrityError(
            "the stage that tells of a plan has none in its artifact",
            found=str(error),
            wanted=f"a {PLAN}",
            remedy="Run the stage again.",
        ) from error
    return dict(value)


def _told(results: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    plans = ((result.get("details") or {}).get("plan") for result in results)
    return next((plan for plan in plans if isinstance(plan, dict)), None)


def _stage(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    metrics, measurements = result["metrics"], result["measurements"]
    digest, parent = (result.get("artifact") or {}).get("digest"), result.get("parent")
    size, latency = _size(result), measurements.get("latency_ms")
    return {
        "stage": name,
        "digest": digest,
        "parent": parent if parent != digest else None,  # a stage may pass on what it was given
        "size_bytes": size,
        "size_of": None if size is None else _size_of(metrics),
        "metric": metrics.get("metric"),
        "quality": metrics.get("quality"),
        "quality_ci": metrics.get("quality_ci"),
        "latency_ms": latency,
        "latency_of": None if latency is None else "request" if result["step"] in _BY_REQUEST else "model",
        **{key: _number(metrics.get(key)) for key in _COUNTED},
        "duration_s": result["duration_s"],
        "cached": result["cached"],
    }


def _size_of(metrics: Mapping[str, Any]) -> str:
    if "image" in metrics:
        return "image"
    return "release" if "bundle_bytes" in metrics else "model"


def _size(result: Mapping[str, Any]) -> int | None:
    """Return the model's own size; an artifact's counts what travels along, too."""
    if result["step"] in _MAKES_NONE:
        return None
    metrics = result["metrics"]
    size: int | None = metrics.get("model_bytes", metrics.get("bundle_bytes", result["size_bytes"]))
    return size


def _served(deploy: Mapping[str, Any]) -> dict[str, Any]:
    details = deploy["details"]
    golden = details.get("golden") or {}
    return {
        "golden_requests": golden.get("total"),
        "matched": golden.get("matched"),
        "max_abs_error": golden.get("max_abs_error"),
        "tolerance": golden.get("tolerance"),
        "url": details.get("url"),
    }


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _compression(test: Mapping[str, Any]) -> dict[str, Any]:
    metrics, measured, details = test["metrics"], test["measurements"], test["details"]
    quality, baseline = metrics.get("quality"), details.get("baseline_quality")
    drop = metrics.get("drop")
    if drop is None and quality is not None and baseline is not None:
        higher = bool(metrics.get("higher_is_better", True))
        drop = drop_of(metrics["metric"], quality, baseline, higher_is_better=higher)
    return {
        "size_ratio": metrics["size_ratio"],
        "speedup": measured["speedup"],
        "baseline_quality": baseline,
        "drop": drop,
        **{key: metrics.get(key) for key in ("quality", "quality_ci", "drop_ci", "cosine", "agreement")},
        "before": {
            "size_bytes": details.get("baseline_bytes"),
            **{key: measured.get(f"baseline_{name}") for key, name in _COSTS.items()},
        },
        "after": {
            "size_bytes": details.get("model_bytes"),
            **{key: measured.get(name, metrics.get(name)) for key, name in _COSTS.items()},
        },
    }


def _environment(results: Results) -> dict[str, Any]:
    """Return what the run was made with: as its test recorded it, else as it is here."""
    cpu = cpu_fingerprint()
    here = {
        "versions": versions(_TOOLS),
        "cpu": cpu.model,
        "cpu_features": list(cpu.flags),
        "cpus": cpu.logical_cpus,
        "threads": next(
            (r["details"]["threads"] for r in results.values() if (r.get("details") or {}).get("threads")),
            None,
        ),
    }
    test = results.get("test_model")
    return here | ((test["details"].get("environment") if test else None) or {})
