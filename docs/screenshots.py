"""Makes the pictures of the documentation again: the form, the graph, a task's log and the report, in a real browser.

Usage: python docs/screenshots.py [FOLDER]. Starts an Airflow of its own, fills in the reference Dag's form with values
of its own, waits for the run and takes the pictures. Needs Chromium (CHROMIUM, or `chromium` on the path).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))

from airflow_model_deploy.engine.steps.service import stop_service  # noqa: E402
from airflow_server import AirflowServer, free_port, running_airflow  # noqa: E402
from demo_flow import DAG_ID, collect, place_settings, write_report  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

# What the form is filled with, by section: other than its defaults.
VALUES = {
    "Model": {"epochs": "8"},
    "Compression": {"max_quality_drop": "2", "recovery_epochs": "9", "prune_ratio": "0.65"},
    "Service": {"monitor_seconds": "5"},
}
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> int:
    """Take the pictures."""
    from playwright.sync_api import sync_playwright

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / "docs" / "images")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="model-deploy-screenshots-") as name,
        sync_playwright() as playwright,
    ):
        home = Path(name)
        browser = playwright.chromium.launch(executable_path=chromium(), args=BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        try:
            with running_airflow(
                home / "airflow", dags=REPOSITORY / "dags", dag_ids=(DAG_ID,), more=place_settings(home)
            ) as airflow:
                run_id = trigger_by_form(airflow, page, folder, port=free_port())
                wait(airflow, run_id)
                look_at_run(airflow, page, folder, run_id)
                report = write_report(collect(airflow, run_id), run_id, home)
            page.goto((home / "report.html").as_uri())
            page.screenshot(path=folder / "report.png", full_page=True)
        finally:
            stop_service(home / "host", "digits")
            browser.close()
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}; verdict: {report['verdict']['status']}")
    return 0


def chromium() -> str:
    """Return the browser's path."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        sys.exit("no Chromium found; install it, or name it by CHROMIUM=/path/to/chromium")
    return found


def trigger_by_form(airflow: AirflowServer, page: Page, folder: Path, *, port: int) -> str:
    """Open the form, fill it in by hand, send it; returns the run's id."""
    airflow.call("PATCH", f"/dags/{DAG_ID}", {"is_paused": False})
    page.goto(f"{airflow.url}/dags/{DAG_ID}")
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    for section, values in VALUES.items():
        dialog.get_by_role("button", name=section, exact=True).click()
        fill(page, {**values, "port": str(port)} if section == "Service" else values)
        page.wait_for_timeout(500)
        page.screenshot(path=folder / f"form-{section.lower()}.png")
    dialog.get_by_role("button", name="Trigger").click()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        runs = airflow.call("GET", f"/dags/{DAG_ID}/dagRuns?limit=1")["dag_runs"]
        if runs:
            return str(runs[0]["dag_run_id"])
        time.sleep(0.3)
    page.screenshot(path=folder / "form-refused.png")
    raise RuntimeError("the form started no run; see form-refused.png")


def fill(page: Page, values: dict[str, str]) -> None:
    """Write values into the open section's fields, by the names of the Params."""
    for name, value in values.items():
        field = page.locator(f"input[name='element_{name}']")
        field.fill(value)
        field.press("Tab")


def wait(airflow: AirflowServer, run_id: str) -> None:
    """Wait until the run has ended well."""
    deadline = time.monotonic() + 400
    while (state := airflow.run_state(DAG_ID, run_id)) not in ("success", "failed"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the run is still {state}")
        time.sleep(1)
    if state == "failed":
        raise RuntimeError(f"the run failed: {airflow.tasks(DAG_ID, run_id)}")


def look_at_run(airflow: AirflowServer, page: Page, folder: Path, run_id: str) -> None:
    """Take the graph, and the log of the test."""
    page.goto(f"{airflow.url}/dags/{DAG_ID}/runs/{run_id}")
    page.get_by_text("monitor_model").first.wait_for()
    page.get_by_role("button", name="Graph").first.click()
    page.wait_for_timeout(2500)  # the graph is laid out
    page.screenshot(path=folder / "graph.png")
    page.goto(f"{airflow.url}/dags/{DAG_ID}/runs/{run_id}/tasks/test_model")
    page.get_by_text("golden requests match").first.wait_for()
    page.screenshot(path=folder / "log.png")


if __name__ == "__main__":
    sys.exit(main())
