"""The report of a run that came as far as it came."""

from __future__ import annotations

from typing import Any

from airflow_model_deploy.engine.steps.report import report_of_run

OUTCOME = {
    "attempt": "dag/run/deploy_model/-1/1",
    "action": "deploy",
    "revision": "222222222222",
    "result": "rolled back",
    "reason": "digits: canary 33% fails",
    "at": "2026-11-22T22:46:30+00:00",
    "details": {
        "golden": {"total": 16, "matched": 16, "max_abs_error": 0.0, "tolerance": 1e-4},
        "summary": "16 of 16 golden requests match",
        "changes": ["create Deployment digits-222222222222"],
        "phases": [
            {
                "name": "canary 33%",
                "watched_s": 5.0,
                "status": "fail",
                "reasons": ["16 of 300"],
                "canary": {"requests": 300, "errors": 16, "slow": 0, "restarts": 0, "ready": 1, "wanted": 1},
                "stable": {"requests": 600, "errors": 0, "slow": 0, "restarts": 0, "ready": 2, "wanted": 2},
            }
        ],
    },
}


def _result(step: str, **changes: Any) -> dict[str, Any]:
    empty = {"metrics": {}, "measurements": {}, "details": {}, "size_bytes": None, "artifact": None}
    return {"step": step, "name": "digits", "duration_s": 1.0, "cached": False, **empty, **changes}


def test_a_run_whose_rollout_was_sent_back_has_a_report() -> None:
    results = {"train_model": _result("train"), "package_image": _result("package")}
    report = report_of_run(results, run_id="r", rollouts=[{**OUTCOME, "result": "promoted"}, OUTCOME])
    assert (report["served"], report["verdict"], report["model"]) == (None, None, "digits")
    assert [one["result"] for one in report["rollouts"]] == ["promoted", "rolled back"]
    assert report["rollouts"][1]["phases"][0]["canary"]["errors"] == 16
    assert report["compression"]["size_ratio"] is None
    assert report["environment"]["cpus"]


def test_a_deployment_tells_of_its_own_rollout() -> None:
    details = {"url": "http://digits", "golden": OUTCOME["details"]["golden"], "outcome": OUTCOME}
    results = {"deploy_model": _result("deploy", details=details)}
    report = report_of_run(results, run_id="r")
    assert [one["revision"] for one in report["rollouts"]] == ["222222222222"]
    assert (report["served"]["matched"], report["served"]["url"]) == (16, "http://digits")
    del details["outcome"]
    assert report_of_run(results, run_id="r")["rollouts"] == []


def test_an_end_without_figures_is_told_without_them() -> None:
    report = report_of_run(
        {"train_model": _result("train")},
        run_id="r",
        rollouts=[{**OUTCOME, "details": {"golden": "16 of 16"}}],
    )
    assert report["rollouts"][0]["golden"] is None
    assert report["rollouts"][0]["phases"] == []
