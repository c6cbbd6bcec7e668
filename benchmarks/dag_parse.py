"""What the reference Dag costs to parse, beside a Dag file that imports airflow.sdk and KubernetesPodOperator alone.

Each is run in interpreters of its own, in turns; the least CPU time of each counts. Prints one JSON object last.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RUNS = 11
BOUND = 1.15

BARE = """
from datetime import timedelta
from airflow.sdk import DAG, Param
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
with DAG(dag_id="bare", schedule=None):
    KubernetesPodOperator(task_id="pod", image="busybox")
"""


def cpu_seconds(path: Path, home: Path) -> float:
    """Return the CPU seconds of an interpreter that imports a Dag file, its start included."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1])"
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(REPOSITORY / "dags"),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> int:
    """Measure, print, and return 1 if the claim doesn't hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = folder / "bare.py"
        bare.write_text(BARE)
        files = {"bare": bare, "model_deploy": REPOSITORY / "dags" / "model_deploy.py"}
        for path in files.values():  # writes bytecode and Airflow's configuration file
            cpu_seconds(path, folder)
        times: dict[str, list[float]] = {label: [] for label in files}
        for turn in range(RUNS):
            for label in files if turn % 2 == 0 else reversed(files):
                times[label].append(cpu_seconds(files[label], folder))
    least = {label: min(values) for label, values in times.items()}
    ratio = least["model_deploy"] / least["bare"]
    claim = {"claim": "parse_ratio", "value": round(ratio, 4), "bound": BOUND, "holds": ratio <= BOUND}
    print(
        json.dumps(
            {
                "machine": {
                    "cpu": platform.processor() or platform.machine(),
                    "python": platform.python_version(),
                },
                "rows": [
                    {"file": label, "cpu_s": round(value, 4), "runs": RUNS} for label, value in least.items()
                ],
                "claims": [claim],
            }
        )
    )
    return 0 if claim["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
