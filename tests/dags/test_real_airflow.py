"""Dags run by a real Airflow: somebody's own, several at once, in an installation that has no torch itself."""

from __future__ import annotations

import json
import subprocess
import time
from urllib.parse import unquote

import httpx
import pytest

from airflow_model_deploy.engine.steps.service import service_status, stop_service
from airflow_model_deploy.engine.steps.verify import verify
from airflow_server import free_port

# Bounds on what hangs; on a machine that other tests keep busy, a run takes minutes.
pytestmark = pytest.mark.timeout(900)


def finish(server, dag_id, run_id, *, within=500):
    deadline = time.monotonic() + within
    while (state := server.run_state(dag_id, run_id)) not in ("success", "failed"):
        assert time.monotonic() < deadline, f"{dag_id} still {state}: {server.tasks(dag_id, run_id)}"
        time.sleep(0.5)
    return state


def succeed(server, dag_id, run_id):
    state = finish(server, dag_id, run_id)
    if state != "success":
        for task in server.tasks(dag_id, run_id):
            if task["state"] == "failed":
                log = server.log(dag_id, run_id, task["task_id"], task["try_number"])
                pytest.fail(f"{dag_id}.{task['task_id']} failed:\n" + "\n".join(log[-30:]))


def test_airflows_interpreter_has_no_torch_and_the_engines_no_airflow(airflow):
    for python, absent, present in ((airflow.bare, "torch", "airflow"), (airflow.engine, "airflow", "torch")):
        code = f"import {present}\ntry:\n    import {absent}\nexcept ImportError:\n    raise SystemExit(7)"
        assert subprocess.run([python, "-c", code], check=False).returncode == 7


def test_own_dags_of_all_kinds_run_side_by_side(airflow):
    server, folder = airflow.server, airflow.folder
    ports = {"moons-large": free_port(), "moons-small": free_port()}
    runs = {
        "own_training": server.trigger("own_training", {}),
        "mapped": server.trigger("mapped", {}),
    }
    deployments = {
        name: server.trigger("between_tasks", {"name": name, "port": port}) for name, port in ports.items()
    }
    try:
        for dag_id, run_id in runs.items():
            succeed(server, dag_id, run_id)
        for run_id in deployments.values():
            succeed(server, "between_tasks", run_id)

        built = server.result("own_training", runs["own_training"], "build")
        assert {a["step"] for a in verify(built["artifact"]["uri"])["artifacts"]} >= {
            "ingest",
            "quantize",
            "build",
        }

        mapped = server.tasks("mapped", runs["mapped"])
        assert sorted(t["map_index"] for t in mapped if t["task_id"] == "quantize") == [0, 1, 2]

        for name, run_id in deployments.items():  # two services of one host, side by side
            told = server.call(
                "GET",
                f"/dags/between_tasks/dagRuns/{run_id}/taskInstances/tell_the_team/xcomEntries/return_value",
            )["value"]
            assert f"healthy at http://127.0.0.1:{ports[name]}" in told
            assert httpx.get(f"http://127.0.0.1:{ports[name]}/v2/models/{name}").json()["name"] == name
            assert service_status(folder / "host", name)["serving"] is True

        events = server.call("GET", "/assets/events?limit=100&order_by=-timestamp")["asset_events"]
        deployed = (
            [e["extra"] for e in events if e["name"] == "model/moons/deployed"]
            if "name" in events[0]
            else None
        )
        released = [e["extra"] for e in events if str(e["extra"].get("digest", "")).startswith("sha256:")]
        assert released
        assert deployed is None or len(deployed) == 2

        link = server.call(
            "GET", f"/dags/between_tasks/dagRuns/{run_id}/taskInstances/model_deploy.deploy_model/links"
        )["extra_links"]
        assert link["Service"].startswith("http://127.0.0.1:")
        # Where it leads, a web server finds what a task of the Dag has written.
        kept = link["Report"].removeprefix("https://reports.example/")
        report = json.loads((folder / "reports" / unquote(kept)).with_suffix(".json").read_text())
        assert report["verdict"]["status"] == "healthy"
        assert len(report["stages"]) == 10
    finally:
        for name in ports:
            stop_service(folder / "host", name)


def test_a_gate_fails_the_run_at_once_with_its_reason_in_the_log(airflow):
    server = airflow.server
    run_id = server.trigger(
        "between_tasks", {"name": "moons-small", "port": free_port(), "min_size_ratio": 1000.0}
    )
    assert finish(server, "between_tasks", run_id) == "failed"
    tasks = {task["task_id"]: task for task in server.tasks("between_tasks", run_id)}
    assert tasks["model_deploy.test_model"]["state"] == "failed"
    assert tasks["model_deploy.test_model"]["try_number"] == 1
    log = "\n".join(server.log("between_tasks", run_id, "model_deploy.test_model", 1))
    assert "min_size_ratio failed" in log
    assert tasks["model_deploy.deploy_model"]["state"] == "upstream_failed"
    report = airflow.folder / "reports" / "between_tasks" / run_id / "report.json"
    assert json.loads(report.read_text())["verdict"] is None


def test_a_param_of_the_wrong_type_is_refused_by_the_api(airflow):
    with pytest.raises(RuntimeError, match=r"40[0-9]|422"):
        airflow.server.trigger("model_deploy", {"prune_ratio": "a lot"})
    with pytest.raises(RuntimeError, match=r"40[0-9]|422"):
        airflow.server.trigger("model_deploy", {"target": "the moon"})


def test_a_backfill_is_refused(airflow):
    body = {"dag_id": "model_deploy", "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-03T00:00:00Z"}
    with pytest.raises(RuntimeError, match=r"4[0-9][0-9]"):
        airflow.server.call("POST", "/backfills", body)
