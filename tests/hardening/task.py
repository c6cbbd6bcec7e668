"""Plays the Airflow task: runs one request through the worker's runner, and cancels it in a handler of SIGTERM."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

from airflow_model_deploy.engine.steps import StepRequest
from airflow_model_deploy.runners import WorkerRunner


def main(request: Path, report: Path) -> None:
    runner, seen = WorkerRunner(), {}

    def on_kill(*_):
        start = time.monotonic()
        runner.cancel()
        seen["cancel_s"] = time.monotonic() - start

    signal.signal(signal.SIGTERM, on_kill)
    handle = runner.start(StepRequest.from_json(json.loads(request.read_text())))
    report.with_suffix(".pid").write_text(str(handle["pid"]))
    result = runner.wait()
    report.write_text(json.dumps({**seen, "result": result.to_json()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
