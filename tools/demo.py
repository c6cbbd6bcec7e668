"""`make demo`: the reference Dag in a real Airflow, from training to a watched service, and its report."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from airflow_model_deploy.engine.errors import UnavailableError
from airflow_model_deploy.engine.steps.service import service_status, stop_service
from airflow_server import REPOSITORY, free_port, running_airflow, settings, stop
from demo_flow import DAG_ID, DEMO, SERVICE, collect, explain, follow, place_settings, write_report

HOST_ROOT = DEMO / "host"


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--target",
        default="host",
        choices=["host", "docker", "kubernetes"],
        help="where the model is deployed",
    )
    parser.add_argument("--registry", default="", help="where images are pushed; a cluster needs one")
    parser.add_argument("--namespace", default="model-deploy-demo", help="of a cluster, made for the demo")
    parser.add_argument("--keep", action="store_true", help="leave the service running")
    parser.add_argument("--ui", action="store_true", help="start Airflow's UI and nothing else")
    parser.add_argument("--port", type=int, default=8080, help="port of the UI")
    parser.add_argument("--stop", action="store_true", help="stop the service")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    if arguments.target == "kubernetes" and not arguments.ui:
        import demo_kubernetes

        if arguments.stop:
            return demo_kubernetes.stop(arguments.namespace)
        return demo_kubernetes.demonstrate(arguments.registry, arguments.namespace, keep=arguments.keep)
    if arguments.stop:
        stop_service(HOST_ROOT, SERVICE, place=arguments.target)
        return 0
    if arguments.ui:
        return show_ui(arguments.port)
    return demonstrate(arguments.target, registry=arguments.registry, keep=arguments.keep)


def demonstrate(target: str, *, registry: str, keep: bool) -> int:
    """Run the Dag, print each stage as it ends, write the report; 0 if all of it is as promised."""
    started = time.monotonic()
    try:
        status = service_status(HOST_ROOT, SERVICE, place=target)
    except UnavailableError as error:
        print(f"The demo can't start: {error}")
        return 1
    port = int(status["port"]) if status.get("port") else free_port()
    print(f"Starting Airflow below {DEMO.relative_to(REPOSITORY)}/ …", flush=True)
    with running_airflow(
        DEMO / "airflow", dags=REPOSITORY / "dags", dag_ids=(DAG_ID,), more=place_settings(DEMO, registry)
    ) as airflow:
        print(
            f"Airflow is ready after {time.monotonic() - started:.0f} s. Triggering the Dag {DAG_ID}.\n",
            flush=True,
        )
        run_id = airflow.trigger(DAG_ID, {"target": target, "port": port, "model_name": SERVICE})
        state = follow(airflow, run_id)
        results = collect(airflow, run_id) if state == "success" else {}
        if state != "success":
            explain(airflow, run_id)
    if state != "success":
        stop_service(HOST_ROOT, SERVICE, place=target)
        print(
            f"\nThe demo failed: the run {run_id} ended as {state}. Airflow's log: demo/airflow/airflow.log"
        )
        return 1
    report = write_report(results, run_id)
    summarise(report, time.monotonic() - started)
    if image := results["package_image"]["details"].get("image"):
        print(f"The image: {image}")
    if keep:
        tell_how_to_call(report["served"]["url"], target)
    else:
        stop_service(HOST_ROOT, SERVICE, place=target)
        print("The service is stopped again; with KEEP=1 it is left running.")
    return 0 if report["served"]["matched"] == report["served"]["golden_requests"] else 1


def summarise(report: dict[str, Any], seconds: float) -> None:
    """Print the table and the three figures that count."""
    print(f"\n{'stage':20} {'size':>10} {'accuracy':>9} {'latency':>10} {'time':>8}")
    for stage in report["stages"]:
        size, accuracy, latency = stage["size_bytes"], stage["accuracy"], stage["latency_ms"]
        print(
            f"{stage['stage']:20} "
            f"{_size(size):>10} "
            f"{'' if accuracy is None else f'{accuracy:.1%}':>9} "
            f"{'' if latency is None else f'{latency:.3f} ms':>10} "
            f"{stage['duration_s']:6.1f} s{'  cached' if stage['cached'] else ''}"
        )
    compression, served = report["compression"], report["served"]
    if report["plan"]:
        print(f"\nThe plan: {report['plan']['reason']}.")
    print(
        f"\n{compression['size_ratio']:.1f}x smaller, {compression['speedup']:.1f}x faster,"
        f" {compression['accuracy_drop_points']:.2f} points of accuracy lost against the fp32 ONNX export."
    )
    print(
        f"{served['matched']} of {served['golden_requests']} golden requests matched at {served['url']};"
        f" verdict: {report['verdict']['status']}."
    )
    print(f"All of it took {seconds:.0f} s. Report: demo/report.html")


def _size(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e3:.1f} kB" if size < 1e7 else f"{size / 1e6:.1f} MB"


def tell_how_to_call(url: str, target: str) -> None:
    """Print how to ask the service."""
    print(f"\nThe service runs at {url}. Ask it:\n")
    zeros = ",".join(["0"] * 64)
    print(
        f"  curl -s {url}/v2/models/{SERVICE}/infer -d"
        f' \'{{"inputs":[{{"name":"images","shape":[1,1,8,8],"datatype":"FP32","data":[{zeros}]}}]}}\'\n'
    )
    print(f"Stop it with: .venv/bin/python tools/demo.py --stop --target {target}")


def show_ui(port: int) -> int:
    """Run Airflow in the foreground until it is interrupted."""
    home = DEMO / "airflow"
    home.mkdir(parents=True, exist_ok=True)
    print(f"Airflow's UI will be at http://127.0.0.1:{port} (no password; Ctrl-C ends it).", flush=True)
    environment = settings(home, port, REPOSITORY / "dags", place_settings(DEMO))
    process = subprocess.Popen([sys.executable, "-m", "airflow", "standalone"], env=environment, cwd=home)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with suppress(KeyboardInterrupt):
            process.wait()
    finally:
        stop(process)
    return 0


if __name__ == "__main__":
    sys.exit(main())
