"""`make demo TARGET=kubernetes`: a first release, a better one by canary, and a bad one that only traffic shows."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment import kubernetes as k8s
from airflow_server import REPOSITORY, running_airflow
from bad_model import write_bad_model
from demo_cluster import MissingError, connected, driver_image, make_namespace, reached, remove_namespace
from demo_flow import DAG_ID, DEMO, SERVICE, collect, explain, follow, place_settings, store_of, write_report
from demo_summary import Ended, claims, summarise
from demo_traffic import Traffic

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_server import AirflowServer

_BAKE_S = 10
_SETTLED_S = 3.0  # what clients get between two runs, and once all is over


@dataclass(frozen=True)
class Release:
    """What one run of the Dag is for: its words, the form's fields, and how it shall end."""

    title: str
    params: dict[str, Any]
    result: str


_RELEASES = (
    Release("a first release, as trained", {"quantization": "none", "strategy": "blue-green"}, "promoted"),
    Release("the same in int8, by canary", {"quantization": "static", "strategy": "canary"}, "promoted"),
    Release(
        "a bad one, by canary: right in every test, an error for some of what clients send",
        {"quantization": "none", "strategy": "canary"},
        "rolled back",
    ),
)


def demonstrate(registry: str, namespace: str, *, keep: bool) -> int:
    """Make the three runs while clients ask, tell what became of them; 0 if all of it is as promised."""
    started = time.monotonic()
    try:
        if not registry:
            raise MissingError(
                "no registry is named. Set REGISTRY to one that the cluster's nodes pull from."
            )
        cluster = connected(namespace)
        print(f"Making the namespace {namespace} and the driver's image …", flush=True)
        remove_namespace(namespace)
        image = driver_image(registry)
        make_namespace(namespace)
    except MissingError as error:
        print(f"The demo can't start: {error}")
        return 1
    try:
        with cluster:
            return _with_airflow(cluster, {**place_settings(DEMO, registry), **_driver(image)}, started)
    finally:
        if keep:
            print(
                f"The service is left running. Ask it: kubectl -n {namespace} port-forward svc/{SERVICE} 8080:80"
            )
            print("Remove it: .venv/bin/python tools/demo.py --stop --target kubernetes")
        else:
            remove_namespace(namespace, wait=False)
            print(f"The namespace {namespace} is being deleted; with KEEP=1 it stays.")


def stop(namespace: str) -> int:
    """Delete the demo's namespace."""
    try:
        connected(namespace).close()
        remove_namespace(namespace)
    except MissingError as error:
        print(error)
        return 1
    return 0


def _with_airflow(cluster: k8s.Cluster, more: dict[str, str], started: float) -> int:
    print(f"Starting Airflow below {DEMO.relative_to(REPOSITORY)}/ …", flush=True)
    with (
        running_airflow(DEMO / "airflow", dags=REPOSITORY / "dags", dag_ids=(DAG_ID,), more=more) as airflow,
        ExitStack() as way,
        Traffic(SERVICE, str(REPOSITORY / "dags")) as traffic,
    ):
        print(f"Airflow is ready after {time.monotonic() - started:.0f} s.", flush=True)
        ends: list[Ended] = []
        for number, release in enumerate(_RELEASES, 1):
            print(f"\nRun {number}: {release.title}\n", flush=True)
            bad = _bad_model(ends[0].results) if number == len(_RELEASES) else None
            end = _run(airflow, cluster, release, bad)
            ends.append(end)
            if end.outcome is None or end.outcome.result != release.result:
                print(f"\nThe demo failed: run {number} ended as {end.state}. Log: demo/airflow/airflow.log")
                return 1
            if number == 1:
                traffic.start(way.enter_context(reached(cluster, SERVICE)))
            time.sleep(_SETTLED_S)
    report = _report(ends)
    found = k8s.status(cluster, SERVICE)
    seen = traffic.seen()
    summarise(ends, seen)
    print(f"\nAll of it took {time.monotonic() - started:.0f} s. Report: demo/report.html\n")
    promised = list(claims(ends, seen, report, found.live if found else None))
    for claim, kept in promised:
        print(f"  {'✓' if kept else '✗'} {claim}")
    return 0 if all(kept for _, kept in promised) else 1


def _run(airflow: AirflowServer, cluster: k8s.Cluster, release: Release, model: Path | None) -> Ended:
    """Run the Dag once, to whatever end."""
    before = k8s.status(cluster, SERVICE)
    began = time.monotonic()
    form = {
        "target": "kubernetes",
        "namespace": cluster.namespace,
        "model_name": SERVICE,
        "method": "none",
        "cpu_request": 0.1,  # a small model, on a cluster that may be a laptop
        "bake_seconds": _BAKE_S,
        "monitor_seconds": 5,
        **release.params,
    }
    run_id = airflow.trigger(DAG_ID, form | ({"model": str(model)} if model else {}))
    state = follow(airflow, run_id)
    ended = time.monotonic()
    after = k8s.status(cluster, SERVICE)
    known = before.outcome if before else None
    outcome = after.outcome if after and after.outcome != known else None
    if outcome is None or outcome.result != release.result:
        explain(airflow, run_id)
    return Ended(
        run_id, state, collect(airflow, run_id), outcome, after.live if after else None, began, ended
    )


def _bad_model(results: dict[str, dict[str, Any]]) -> Path:
    """Write the third release's model, from what the first one serves."""
    from airflow_model_deploy.engine.artifacts import Reference, Store

    built = Reference.from_json(results["build_model"]["artifact"])
    folder, _ = Store(store_of(results)).fetch(built, DEMO / "bad-model" / "from")
    return write_bad_model(folder / "model.onnx", DEMO / "bad-model" / "model.onnx")


def _report(ends: list[Ended]) -> dict[str, Any]:
    """Write each run's report, with the rollouts up to it; the last one's is the demo's."""
    rollouts = [asdict(end.outcome) for end in ends if end.outcome]
    for number, end in enumerate(ends[:-1], 1):
        write_report(end.results, end.run_id, DEMO / f"release-{number}", rollouts[:number])
    return write_report(ends[-1].results, ends[-1].run_id, rollouts=rollouts)


def _driver(image: str) -> dict[str, str]:
    """Return Airflow's settings for the cluster: the driver's image; KUBECONFIG says the rest."""
    return {"AIRFLOW__MODEL_DEPLOY__DRIVER_IMAGE": image}
