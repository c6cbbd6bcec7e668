"""The reference Dag as a person uses it: by the form in a browser, then again by the REST API."""

from __future__ import annotations

import shutil
import sys

import pytest

from airflow_model_deploy.engine.steps.service import service_status, stop_service
from airflow_server import free_port
from tests.conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "docs"))

from demo_flow import DAG_ID, STAGES, collect, write_report
from screenshots import BROWSER_ARGUMENTS, VALUES, look_at_run, trigger_by_form, wait

PURE = STAGES[:8]


@pytest.fixture
def page():
    browser_path = shutil.which("chromium")
    if not browser_path:
        pytest.skip("no Chromium on the path")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=BROWSER_ARGUMENTS)
        yield browser.new_page(viewport={"width": 1400, "height": 1000})
        browser.close()


@pytest.mark.timeout(1200)
def test_from_the_form_to_a_service_and_once_more_from_the_cache(airflow, page, tmp_path):
    server, port = airflow.server, free_port()
    try:
        run_id = trigger_by_form(server, page, tmp_path, port=port)
        conf = server.call("GET", f"/dags/{DAG_ID}/dagRuns/{run_id}")["conf"]
        filled = {name: float(value) for values in VALUES.values() for name, value in values.items()}
        assert {name: float(conf[name]) for name in filled} == filled
        wait(server, run_id)
        assert {task["task_id"]: task["state"] for task in server.tasks(DAG_ID, run_id)} == dict.fromkeys(
            STAGES, "success"
        )

        results = collect(server, run_id)
        report = write_report(results, run_id, tmp_path)
        assert report["served"]["matched"] == report["served"]["golden_requests"] >= 16
        assert report["compression"]["size_ratio"] >= 10
        assert report["compression"]["speedup"] >= 5
        assert report["compression"]["accuracy_drop_points"] <= 2.0  # what the form asked for
        assert report["verdict"]["status"] == "healthy", report["verdict"]
        assert [stage["stage"] for stage in report["stages"]] == list(STAGES)
        html = (tmp_path / "report.html").read_text()
        assert "http://" not in html.replace(report["served"]["url"], "").replace("http://www.w3.org", "")

        look_at_run(server, page, tmp_path, run_id)
        assert (tmp_path / "graph.png").stat().st_size > 10_000
        assert "golden requests match" in page.content()  # the task's log is on the page

        again = server.trigger(DAG_ID, conf)
        wait(server, again)
        second = collect(server, again)
        assert {stage: second[stage]["cached"] for stage in PURE} == dict.fromkeys(PURE, True)
        assert max(second[stage]["duration_s"] for stage in PURE) < 1.0
        assert not second["deploy_model"]["cached"]
        assert not second["monitor_model"]["cached"]
        assert second["deploy_model"]["details"]["changed"] is False
        assert service_status(airflow.folder / "host", "digits")["serving"] is True
    finally:
        stop_service(airflow.folder / "host", "digits")
