"""Changes of what serves, under load that never stops: not one request fails, and no pod restarts for a promotion."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes import address
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import every, revision_name
from airflow_model_deploy.engine.deployment.targets.kubernetes.releases import revision_label
from airflow_model_deploy.engine.packaging import Rollout, Workload
from tests.engine.deployment.cluster.load import Load, wrk
from tests.engine.deployment.cluster.rollouts import CANARY, PLAIN
from tests.engine.deployment.cluster.served import NAME, answer
from tests.engine.deployment.cluster.steady import LENIENT, ONE, Hook, change, drained, pods_of, replicas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.deployment.cluster.rollouts import Site

pytestmark = pytest.mark.kubernetes
TWO = Workload(replicas=2, drain_s=2.0)


@contextmanager
def never_failing(site: Site, tmp_path: Path) -> Iterator[Load]:
    """Requests from two sides, until the pods that don't serve any more have ended."""
    with (
        Load(site.address(), clients=4, fresh=2, pause_s=0.03, oracle=answer) as load,
        wrk(site.address(), tmp_path, seconds=280, connections=2, rate=30) as other,
    ):
        yield load
        live = site.decision().live
        for revision in {str(revision_label(pod)) for pod in site.cluster.list("Pod", every(NAME))} - {live}:
            drained(site, revision)
        load.mark("settled")
        time.sleep(0.5)
        counted = other.stop()
    assert load.failures == []
    assert set(load.window("settled").versions) == {load_kind(site)}
    assert counted.errors == {}
    assert counted.requests > counted.seconds


def load_kind(site: Site) -> str:
    """The version that the live revision's servers answer with."""
    (pod, *_) = site.pods(site.decision().live)
    found = httpx.get(f"http://{pod['status']['podIP']}:8080/v2/models/{NAME}").json()
    return str(found["versions"][0])


def test_one_release_again_and_in_other_ways_to_reach_it(site, models, monkeypatch):
    first = site.deploy(models["good"], PLAIN, ONE, attempt="1")
    assert first.changed
    assert first.url == f"http://tiny.{site.cluster.namespace}.svc:80"
    assert site.decision().outcome.result == "promoted"
    pods = pods_of(site, first.revision)
    assert list(pods.values()) == [0]
    kept = site.cluster.get("Deployment", revision_name(NAME, first.revision))

    again = site.deploy(models["good"], PLAIN, ONE, attempt="2")
    assert (again.changed, again.revision, again.golden.passed) == (False, first.revision, True)
    decision = site.decision()
    assert (decision.outcome.result, decision.outcome.attempt) == ("unchanged", "2")
    assert [one.attempt for one in decision.history] == ["1"]
    now = site.cluster.get("Deployment", revision_name(NAME, first.revision))
    assert now["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]

    nodes = replace(ONE, exposure="NodePort")
    site.deploy(models["good"], PLAIN, nodes, attempt="3")
    port = site.cluster.get("Service", NAME)["spec"]["ports"][0]["nodePort"]
    assert f"port {port} of every node" in "\n".join(site.log)
    node = site.pods()[0]["status"]["hostIP"]
    # Each node opens the port a moment after the cluster has noted it.
    with httpx.Client(transport=httpx.HTTPTransport(retries=6)) as client:  # 0.5 s, 1 s, 2 s, ...
        assert client.get(f"http://{node}:{port}/v2/health/ready").status_code == 200

    monkeypatch.setattr(address, "_ADDRESS_WITHIN_S", 0.2)
    monkeypatch.setattr(address, "_LOOK_EVERY_S", 0.1)
    balanced = site.deploy(models["good"], PLAIN, replace(ONE, exposure="LoadBalancer"), attempt="4")
    assert balanced.url == first.url
    assert "no load balancer has given it an address within 0 s" in site.log[-1]
    assert pods_of(site, first.revision) == pods

    site.deploy(models["good"], PLAIN, replace(ONE, replicas=2, port=8000), attempt="5")
    assert site.address().endswith(":8000")
    assert replicas(site, first.revision) == 2
    assert pods.items() <= pods_of(site, first.revision).items()


def test_blue_green_and_back_and_forth(site, models, tmp_path):
    good = site.deploy(models["good"], PLAIN, TWO, attempt="1").revision
    with never_failing(site, tmp_path) as load:
        better = site.deploy(models["better"], PLAIN, TWO, attempt="2")
        load.mark("promoted")
        assert (better.previous, better.changed) == (good, True)
        assert replicas(site, good) == 0
        promoted = pods_of(site, better.revision)
        assert sorted(promoted.values()) == [0, 0]

        time.sleep(1)
        load.mark("going back")
        back = site.rollback("3")
        load.mark("back")
        assert (back.revision, back.previous) == (good, better.revision)
        assert (replicas(site, good), replicas(site, better.revision)) == (2, 0)
        assert load.window("promoted", "going back").of(fresh=True).versions.keys() == {"better"}

        before = site.decision()
        once_more = site.rollback("3")
        assert (once_more.revision, once_more.changed) == (good, False)
        assert site.decision() == before
        time.sleep(1)
        load.mark("going forth")
        forth = site.rollback("4")
        assert (forth.revision, forth.changed) == (better.revision, True)
        assert load.window("back", "going forth").of(fresh=True).versions.keys() == {"good"}
    decision = site.decision()
    assert (decision.live, decision.previous) == (better.revision, good)
    said = [(one.attempt, one.action, one.result) for one in (decision.outcome, *decision.history)]
    assert said == [
        ("4", "rollback", "promoted"),
        ("3", "rollback", "promoted"),
        ("2", "deploy", "promoted"),
        ("1", "deploy", "promoted"),
    ]


def test_the_pods_of_a_canary_are_those_that_serve_afterwards(site, models, tmp_path, kubectl):
    good = site.deploy(models["good"], PLAIN, TWO).revision
    seen = []

    def look():
        candidate = site.decision().candidate
        seen.append((pods_of(site, candidate), site.selector(), pods_of(site, good)))
        load.mark("shared")

    def scale():
        # As an autoscaler or a person does it while the rollout goes on.
        kubectl("scale", "deployment", revision_name(NAME, good), "--replicas=3")

    def look_again():
        load.mark("shared enough")

    with never_failing(site, tmp_path) as load:
        means = {"sleep": Hook(look, scale, look_again)}
        better = change(
            site, models["better"], CANARY, TWO, attempt="canary", means=means, objectives=LENIENT
        )
    ((canary, selector, stable),) = seen
    assert (len(canary), len(stable), selector) == (1, 2, {"model-deploy.io/service": NAME})
    assert load.window("shared", "shared enough").of(fresh=True).versions.keys() == {"good", "better"}
    after = pods_of(site, better.revision)
    assert len(after) == replicas(site, better.revision) == 3
    assert canary.items() <= after.items()
    assert set(after.values()) == {0}
    assert replicas(site, good) == 0
    phases = site.decision().outcome.details["phases"]
    assert [(one["name"], one["status"]) for one in phases] == [
        ("canary 33%", "pass"),
        ("canary 50%", "pass"),
        ("after the switch", "pass"),
    ]
    assert all(one["canary"]["requests"] >= 20 for one in phases)


@pytest.mark.parametrize(("surge", "unavailable"), [(1, 0), (0, 1)])
def test_rolling_keeps_to_its_bounds(site, models, tmp_path, surge, unavailable):
    good = site.deploy(models["good"], PLAIN, TWO).revision
    rollout = Rollout(strategy="rolling", bake_s=0.0, max_surge=surge, max_unavailable=unavailable)
    site.log.clear()
    with never_failing(site, tmp_path):
        better = site.deploy(models["better"], rollout, TWO, attempt="rolling").revision
    assert list(pods_of(site, better).values()) == [0, 0]
    assert replicas(site, good) == 0
    assert site.decision().outcome.result == "promoted"
    wanted, sums = {good: 2, better: 1}, []
    for revision, count in re.findall(r"revision (\w+) is scaled to (\d+)", "\n".join(site.log)):
        wanted[revision] = int(count)
        sums.append(sum(wanted.values()))
    assert max(sums) <= 2 + surge
    assert min(sums) >= 2 - unavailable
