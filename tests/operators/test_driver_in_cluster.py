"""The real driver in a real cluster, sent by the real operators, each with the rights of docs/kubernetes and no others.

Releases come, are watched and go back; drivers and tasks are ended in the middle, and not one request fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

import airflow_model_deploy as md
from airflow_model_deploy.engine.artifacts import Reference
from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.deployment.targets.kubernetes import driver as engine_driver
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import wait_endpoints, wait_ready
from airflow_model_deploy.engine.errors import RolloutError
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.operators.clusters import open_cluster
from airflow_model_deploy.operators.verdict import Driven, ended
from tests.engine.deployment.cluster.crashes import Fault, Faulty, KilledError, Point, Watcher
from tests.engine.deployment.cluster.grounds import ground
from tests.engine.deployment.cluster.load import Load
from tests.engine.deployment.cluster.models import Models
from tests.engine.deployment.cluster.rollouts import CANARY, PLAIN
from tests.engine.deployment.cluster.scenarios import NAMES, Scenario
from tests.engine.deployment.cluster.served import NAME, answer
from tests.engine.deployment.cluster.steady import LENIENT, ONE, Steady, change, converged, pods_of
from tests.operators.accounts import account, allowed, recorded
from tests.operators.in_cluster import (
    Started,
    again,
    attempt,
    context,
    deferred,
    event_of,
    place_in_cluster,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.deployment.cluster.grounds import Ground
    from tests.operators.in_cluster import Place

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

# Long enough for a test to end it in the middle, short enough to wait for the next try's.
HALVES = replace(CANARY, weights=(0.5,), bake_s=4.0, hold_s=60.0)
LONG = replace(HALVES, bake_s=120.0)
KINDS = ("good", "better")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Images of models that the nodes pull."""
    registry = os.environ.get("TESTBED_REGISTRY")
    if not registry:
        pytest.skip("no TESTBED_REGISTRY: needs a registry that the nodes pull from, with python:3.11-slim")
    return Models(registry, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def place(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in_cluster(models, tmp_path_factory.mktemp("place")) as found:
        yield found


@pytest.fixture(autouse=True)
def as_worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give operators the worker's rights by Airflow's connection, and nothing of this machine's to fall back on."""
    if "place" in request.fixturenames:
        place = request.getfixturevalue("place")
        extra = {"kube_config": json.dumps(place.worker), "namespace": place.namespace}
        connection = json.dumps({"conn_type": "kubernetes", "extra": extra})
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", connection)
        monkeypatch.delenv("KUBECONFIG")


@dataclass(frozen=True)
class Stage:
    """What a test finds: a service with one of two models live.

    Args:
        steady: the service.
        live: the model that serves.
        next: the other one.
    """

    steady: Steady
    live: str
    next: str


@pytest.fixture
def stage(place: Place, models: Models) -> Stage:
    """Whichever of the two another test has left live; each revision is left with one pod or none."""
    site = place.site
    revisions = {kind: site.deliver(models[kind], PLAIN, ONE, objectives=LENIENT).revision for kind in KINDS}
    found = kubernetes.status(site.cluster, NAME)
    live = next((kind for kind in KINDS if found and revisions[kind] == found.live), KINDS[0])
    revision = site.deploy(models[live], PLAIN, ONE, objectives=LENIENT, attempt="stage").revision
    other = KINDS[1 - KINDS.index(live)]
    return Stage(Steady(site, revision, pods_of(site, revision)), live, other)


@contextlib.contextmanager
def loaded(place: Place, service: str = NAME) -> Iterator[Load]:
    """Requests over kept and fresh connections, none of which may fail."""
    spec = place.site.cluster.get("Service", service)["spec"]
    address = f"{spec['clusterIP']}:{spec['ports'][0]['port']}"
    with Load(address, clients=3, fresh=1, pause_s=0.02, oracle=answer) as load:
        yield load
        wait_until(lambda: len(load.seen) > 20, "no load")
    assert load.failures == []


def canary_has_requests(load: Load, stage: Stage) -> None:
    wait_until(lambda: load.versions[stage.next] > 5, "the canary gets no requests")


def assert_all_back(stage: Stage, load: Load, run: str) -> None:
    """See that the stable revision has every request, by the same pods as before."""
    wait_until(lambda: stage.steady.site.decision().candidate is None, "the traffic is not given back")
    stage.steady.assert_withdrawn(attempt(run), "", "interrupted")
    converged(load, stage.live, "back")


def test_a_release_comes_another_takes_over_and_goes_back(place: Place, models: Models) -> None:
    first, second = (place.release(models[kind], PLAIN, "first") for kind in ("good", "better"))
    result = place.rollout(first).execute(context("first"))
    assert (result["step"], result["status"]) == ("deploy", "succeeded")
    assert result["artifact"] == first["artifact"]
    details = result["details"]
    revision = details["revision"]
    assert revision == place.decision("first").live
    assert (details["previous"], details["changed"]) == (None, True)
    assert details["url"] == f"http://first.{place.namespace}.svc:80"
    assert details["golden"]["matched"] == details["golden"]["total"] == 5
    assert details["outcome"]["result"] == "promoted"
    assert details["outcome"]["attempt"] == attempt("first")
    assert place.drivers() == []

    watch = place.operator(
        md.MonitorReleaseOperator, task_id="monitor", release=first, window_s=1.0, interval_s=0.02
    )
    watched = watch.execute(context("first"))["details"]
    assert watched["verdict"]["status"] == "healthy", watched
    assert watched["revision"] == revision

    def serves(wanted: str) -> bool:
        sensor = md.ModelServiceSensor(task_id="wait", name="first", revision=wanted)
        return bool(sensor.poke({}))

    assert serves(revision)
    with loaded(place, "first") as load:
        details = place.rollout(second).execute(context("second"))["details"]
        assert (details["previous"], details["changed"]) == (revision, True)
        assert serves(details["revision"])
        converged(load, "better", "second")
        back = place.operator(md.RollbackOperator, task_id="deploy", name="first")
        returned = back.execute(context("back"))["details"]
        assert (returned["revision"], returned["previous"]) == (revision, details["revision"])
        converged(load, "good", "back")
    with pytest.raises(AirflowFailException, match="was rolled back"):
        serves(details["revision"])
    kubernetes.stop(place.site.cluster, "first")
    place.proved.add("sync")


def test_a_deferred_task_promotes_a_canary(place: Place, stage: Stage, models: Models) -> None:
    release = place.release(models[stage.next], replace(HALVES, bake_s=3.0))
    with loaded(place) as load:
        of = deferred(place.rollout(release, deferrable=True), context("deferred"))
        event = event_of(of)
        assert event["status"] == "success", event
        task = place.rollout(release, deferrable=True)
        result = task.resume_execution(of.method_name, {**of.kwargs, "event": event}, context("deferred"))
        converged(load, stage.next, "promoted")
    details = result["details"]
    assert details["previous"] == stage.steady.live
    phases = details["outcome"]["details"]["phases"]
    assert [(one["name"], one["status"]) for one in phases] == [
        ("canary 50%", "pass"),
        ("after the switch", "pass"),
    ]
    assert place.drivers() == []
    place.proved.add("deferred")


def delete(place: Place, pod: str) -> None:
    place.site.cluster.delete("Pod", pod)


def evict(place: Place, pod: str) -> None:
    cluster = place.site.cluster
    version = "policy/v1" if cluster.serves("PodDisruptionBudget") else "policy/v1beta1"
    body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod}}
    cluster._send("POST", f"/api/v1/namespaces/{place.namespace}/pods/{pod}/eviction", body=body)


def resumed(task: Any, of: Any, work: Started, run: str) -> Any:
    return task.trigger_reentry(context(run), work.ended(), **of.kwargs)


def end_in_the_middle(place: Place, stage: Stage, load: Load, release: dict[str, Any], end: Any) -> None:
    """End the driver of a canary, whose task waits deferred where it is evicted, and see what becomes of both."""
    run = end.__name__
    of = deferred(place.rollout(release, deferrable=True), context(run)) if end is evict else None
    work = Started(lambda: event_of(of) if of else place.rollout(release).execute(context(run)))
    canary_has_requests(load, stage)
    (driver,) = place.drivers()
    end(place, driver["metadata"]["name"])
    with pytest.raises(AirflowException, match="SIGTERM") as caught:
        resumed(place.rollout(release), of, work, run) if of else work.ended()
    assert not isinstance(caught.value, AirflowFailException)  # so that it is tried again
    assert_all_back(stage, load, run)
    place.proved.add(run)


def test_a_driver_that_is_deleted_gives_the_traffic_back_and_the_next_try_promotes(
    place: Place, stage: Stage, models: Models
) -> None:
    release = place.release(models[stage.next], HALVES)
    with loaded(place) as load:
        end_in_the_middle(place, stage, load, release, delete)
        result = place.rollout(release).execute(context("delete", 2))
        assert result["details"]["outcome"]["attempt"] == attempt("delete", 2)
        assert result["details"]["previous"] == stage.steady.live
        converged(load, stage.next, "promoted")


def test_a_driver_that_is_evicted_gives_the_traffic_back(place: Place, stage: Stage, models: Models) -> None:
    with loaded(place) as load:
        end_in_the_middle(place, stage, load, place.release(models[stage.next], LONG), evict)


def test_a_deferred_task_that_is_killed_ends_its_driver(place: Place, stage: Stage, models: Models) -> None:
    release = place.release(models[stage.next], LONG)
    with loaded(place) as load:
        of = deferred(place.rollout(release, deferrable=True), context("killed deferred"))
        canary_has_requests(load, stage)
        asyncio.run(again(of).on_kill())
        assert stage.steady.site.decision().candidate is None
        assert_all_back(stage, load, "killed deferred")
    wait_until(lambda: place.drivers() == [], "the driver goes on")
    place.proved.add("killed deferred")


def test_a_task_that_is_killed_ends_its_driver(place: Place, stage: Stage, models: Models) -> None:
    task = place.rollout(place.release(models[stage.next], LONG))
    with loaded(place) as load:
        work = Started(lambda: task.execute(context("killed")))
        canary_has_requests(load, stage)
        began = time.monotonic()
        task.on_kill()
        assert time.monotonic() - began < 5  # Airflow's own patience
        with pytest.raises(AirflowException, match="the driver was ended"):
            work.ended()
        assert_all_back(stage, load, "killed")
    place.proved.add("killed")


def test_a_driver_hears_the_signal_before_it_has_begun(place: Place) -> None:
    cluster = place.site.cluster
    container = {
        "name": "driver",
        "image": place.image,
        # It waits for a first line that never comes.
        "args": ["run", "deploy", "--lifeline"],
        "stdin": True,
    }
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 60}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "early"}, "spec": spec}
    cluster.create(pod)
    wait_until(lambda: cluster.get("Pod", "early")["status"]["phase"] == "Running", "the pod doesn't run")
    time.sleep(3)  # Python and its imports
    began = time.monotonic()
    cluster.delete("Pod", "early")
    wait_until(lambda: cluster.get("Pod", "early") is None, "the signal was not heard", within_s=55)
    assert time.monotonic() - began < 30


def test_a_worker_gives_back_what_a_dead_driver_has_left(place: Place, stage: Stage, models: Models) -> None:
    site = stage.steady.site
    with loaded(place) as load:
        watcher = Watcher(site.cluster, 1)
        # The canary has got its share, which is the second write of the decision.
        fault = Fault(Point("PATCH services", 2), "killed", "with its answer")
        with Faulty(site.cluster.connection, place.namespace, watcher, fault) as faulty, faulty.ending():
            site.lease_s = 2
            change(site, models[stage.next], LONG, ONE, attempt=attempt("dead"), means={"cluster": faulty})
        assert isinstance(faulty.error, KilledError)
        site.lease_s = 5
        driven = Driven("deploy", NAME, place.namespace, attempt("dead"))
        with open_cluster({"kubeconfig": place.worker}, place.namespace) as ours:
            found = ended(ours, driven, patience_s=0.0, log=logging.getLogger(__name__))
        assert found is not None
        assert_all_back(stage, load, "dead")
    place.proved.add("dead")


def test_the_driver_uses_every_right_that_it_has_and_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """On simulated pods, by the driver's account: the API server refuses what its Role doesn't allow."""
    with recorded() as asked, ground() as here:
        config, worker = (account(here.cluster, one) for one in ("driver", "worker"))
        here.connection = kubernetes.Connection(kubeconfig=config)
        deliver, theirs = kubernetes.deliver, kubernetes.Connection(kubeconfig=worker)
        with kubernetes.Cluster(theirs, here.cluster.namespace) as delivering:
            monkeypatch.setattr(kubernetes, "deliver", lambda _, *content: deliver(delivering, *content))
            monkeypatch.setattr(engine_driver, "KEPT_REVISIONS", 0)
            for name in NAMES:
                scenario = Scenario(name, here)
                scenario.recorded()
            scenario.act()  # done already
            scaled = changed(here.release(), workload={"max_replicas": 3})
            here.deploy(scaled, "scaled")
            here.deploy(scaled, "scaled already")
            here.deploy(changed(here.release("rolling"), workload={"max_replicas": None}), "not any more")
            nowhere = {"workload": {"node_selector": {"nowhere": "1"}}, "rollout": {"ready_timeout_s": 2.0}}
            with pytest.raises(RolloutError, match="didn't match"):
                here.deploy(changed(here.release(), **nowhere), "nowhere")
            # Endpoints follow in no time; where they don't, they are watched.
            with (
                kubernetes.Cluster(here.connection, here.cluster.namespace) as ours,
                pytest.raises(RolloutError, match="endpoints"),
            ):
                wait_endpoints(ours, NAME, {"192.0.2.1"}, deadline_s=1.0)
        unseen = unseen_rights(here.cluster)
    assert asked.of(config) - allowed("driver") == set()
    assert allowed("driver") - asked.of(config) - unseen == set()


def changed(release: bytes, **parts: dict[str, Any]) -> bytes:
    """Return a release with other settings in parts of its plan."""
    content = json.loads(release)
    for part, values in parts.items():
        content["plan"][part] |= values
    return json.dumps(content, sort_keys=True).encode()


def unseen_rights(cluster: kubernetes.Cluster) -> set[tuple[str, str]]:
    """The rights that nothing asks for in this cluster: of kinds that it doesn't serve, or that replace them.

    The Service that `delete` is for leads to a canary behind a Gateway.
    """
    verbs = ("get", "list", "watch", "create", "patch", "delete")
    kinds = {
        "EndpointSlice": ["discovery.k8s.io/endpointslices"],
        "HTTPRoute": ["gateway.networking.k8s.io/httproutes"],
        "HorizontalPodAutoscaler": ["autoscaling/horizontalpodautoscalers"],
        "PodDisruptionBudget": ["policy/poddisruptionbudgets"],
    }
    gone = [one for kind, names in kinds.items() if not cluster.serves(kind) for one in names]
    replaced = ["/endpoints"] if cluster.serves("EndpointSlice") else []
    gateway = {("/services", "delete")} | {(kinds["HTTPRoute"][0], verb) for verb in verbs}
    return gateway | {(one, verb) for one in gone + replaced for verb in verbs}


def test_a_worker_uses_every_right_that_it_has(
    place: Place, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all that the tests above have done; that it needs no others, the API server has seen to."""
    wanted = {"sync", "deferred", "delete", "evict", "killed deferred", "killed", "dead"}
    if missing := wanted - place.proved:
        pytest.skip(f"needs the tests above: {sorted(missing)}")
    # The operator watches in a process of its own, which nobody listens to.
    request = StepRequest(
        "monitor",
        {"target": "kubernetes", "namespace": place.namespace, "window_s": 0.5},
        {"release": Reference.from_json(place.release(models["good"], PLAIN)["artifact"])},
        place.store.url,
    )
    watched = run_request(request, connections={"cluster": {"kubeconfig": place.worker}})
    assert watched.status == "succeeded", watched.error
    monkeypatch.setenv("KUBECONFIG", str(place.site.cluster.connection.path))
    with ground() as here:
        config = account(here.cluster, "worker")
        give_back_a_rolling_replacement(here, kubernetes.Connection(kubeconfig=config))
    asked = place.asked.of(place.worker) | place.asked.of(config)
    assert asked - allowed("worker") == set()
    assert allowed("worker") - asked - unseen_rights(place.site.cluster) == set()


def give_back_a_rolling_replacement(here: Ground, connection: kubernetes.Connection) -> None:
    """The revision that served has no pod left when the driver dies: one has to be there before it takes over."""
    Scenario("first", here).recorded()
    live = here.decision().live
    scaled = Fault(Point("PATCH deployments/scale", 3), "killed", "with its answer")
    here.deploy(here.release("rolling"), "rolling", scaled)
    assert here.watcher.scales()[live] == 0
    here.cluster.delete("Lease", NAME)  # somebody wouldn't wait until it expires
    here.connection = connection
    here._act(kubernetes.give_back, "rolling", None)
    # Pods that are ready at the first look aren't watched.
    with (
        kubernetes.Cluster(connection, here.cluster.namespace) as ours,
        pytest.raises(RolloutError, match="0 of 1"),
    ):
        wait_ready(ours, {"nobody": "here"}, 1, deadline_s=1.0, log=print)
    decision = here.decision()
    assert decision.outcome is not None
    assert (decision.live, decision.candidate, decision.outcome.result) == (live, None, "interrupted")
    assert here.watcher.scales()[live] == 2
