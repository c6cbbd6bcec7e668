"""Other writers of a service's objects: named, and nothing is changed over their heads; and odd ways back."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import ConflictError
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import (
    REVISION,
    every,
    only,
    revision_name,
)
from airflow_model_deploy.engine.errors import InputError, RolloutError
from tests.engine.deployment.cluster.load import Load
from tests.engine.deployment.cluster.rollouts import CANARY, PLAIN, Site
from tests.engine.deployment.cluster.served import NAME, answer
from tests.engine.deployment.cluster.steady import (
    LENIENT,
    ONE,
    Hook,
    change,
    converged,
    drained,
    mine,
    pods_of,
    replicas,
    steady_site,
)

pytestmark = pytest.mark.kubernetes


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of the driver runs any more."""


class Mortal(kubernetes.Cluster):
    """From `kill` on, no call is made: not by the ways back, and not to give the lease up."""

    killed = False

    def kill(self, *_: object) -> None:
        self.killed = True
        raise KilledError

    def _send(self, *arguments: Any, **options: Any) -> Any:
        if self.killed:
            raise KilledError
        return super()._send(*arguments, **options)


def objects_of(site: Site) -> dict[str, str]:
    """Every object of the namespace that a rollout makes, with its version."""
    kinds = ("Deployment", "Service", "ServiceAccount", "NetworkPolicy")
    return {
        f"{kind}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
        for kind in kinds
        for one in site.cluster.list(kind, {})
    }


def settled(site: Site) -> None:
    """Wait until no pod ends any more: the status of a Deployment changes its version, too."""
    live = site.decision().live
    for one in site.cluster.list("Deployment", every(NAME)):
        revision = one["metadata"]["labels"][REVISION]
        if revision != live:
            drained(site, revision)


def test_a_service_that_something_else_made(site, models, kubectl):
    kubectl("create", "service", "clusterip", NAME, "--tcp=80:80")
    before = objects_of(site)
    for attempt in (lambda: site.deploy(models["good"], PLAIN, ONE), site.rollback):
        with pytest.raises(InputError, match=f"Service {NAME} in the cluster.*something else made it"):
            attempt()
    with pytest.raises(InputError, match="something else made it"):
        kubernetes.status(site.cluster, NAME)
    assert objects_of(site) == before


def test_what_a_person_changed_is_named_and_left(models):
    with steady_site(models) as steady:
        site, live = steady.site, steady.live
        better = site.deploy(models["better"], PLAIN, ONE, attempt="2").revision
        settled(site)
        name = revision_name(NAME, live)
        image = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "mine:1"}]}}}}
        steady.kubectl("patch", "deployment", name, "--patch", json.dumps(image))
        before, decision = objects_of(site), site.decision()

        # The revision that a person has changed isn't that revision any more: neither a release nor a way back.
        told = rf"Deployment {name}: \S*\.image \(owned by kubectl-patch\).*Nothing was changed"
        with pytest.raises(RolloutError, match=told):
            site.deploy(models["good"], PLAIN, ONE, attempt="3")
        assert site.decision() == decision
        assert {**objects_of(site), f"Deployment/{name}": before[f"Deployment/{name}"]} == before
        with pytest.raises(ConflictError, match=r"kubectl-patch set .*image"):
            site.rollback("4")
        after = site.decision()
        assert (after.live, after.candidate, after.outcome.result) == (better, None, "rolled back")
        assert replicas(site, live) == 0
        assert list(pods_of(site, better).values()) == [0]

        # Somebody took the traffic by hand, and moved the port.
        port = {"spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "http", "targetPort": 9999}]}}
        selector = mine(live, mine="yes")
        steady.kubectl("patch", "service", NAME, "--patch", json.dumps(port))
        steady.patch_service(selector)
        before = objects_of(site)
        told = rf"Service {NAME}: (?=.*selector)(?=.*targetPort).*\(owned by kubectl-patch\)"
        with pytest.raises(RolloutError, match=told):
            site.deploy(models["good"], PLAIN, replace(ONE, drain_s=3.0), attempt="5")
        assert objects_of(site) == before
        assert site.decision() == after

        # The way back takes the Service back.
        steady.kubectl("delete", "deployment", name)
        back = site.rollback("6")
        assert (back.revision, site.selector()) == (live, only(NAME, live))
        assert site.cluster.get("Service", NAME)["spec"]["ports"][0]["targetPort"] == "http"
        with Load(site.address(), clients=1, fresh=1, oracle=answer) as load:
            while len(load.seen) < 5:
                time.sleep(0.05)
        assert load.failures == []
        assert set(load.versions) == {"good"}

        # What a person has changed and undone is in nobody's way, though the cluster still calls it theirs.
        for revision in (better, live):
            steady.patch_service(mine(revision))
        assert site.deploy(models["better"], PLAIN, ONE, attempt="7").revision == better
        assert site.selector() == only(NAME, better)

        # Another port in the place of ours is taken back, too.
        port["spec"]["ports"][0] |= {"port": 8080, "targetPort": "http"}
        steady.patch_service(port)
        assert site.rollback("7 back").revision == live
        assert [one["port"] for one in site.cluster.get("Service", NAME)["spec"]["ports"]] == [80]
        assert site.deploy(models["better"], PLAIN, ONE, attempt="7 again").revision == better

        # Nor does it keep a canary from its share.
        steady.patch_service(mine(better))
        with Load(site.address(), clients=4, fresh=4, pause_s=0.02, oracle=answer) as load:
            shared = site.deploy(models["good"], CANARY, ONE, attempt="8", objectives=LENIENT)
        assert load.failures == []
        assert (shared.previous, site.selector()) == (better, only(NAME, shared.revision))
        assert [one["status"] for one in site.decision().outcome.details["phases"]] == ["pass"] * 3


def test_back_in_the_middle_of_a_canary_whose_driver_was_killed(models):
    with steady_site(models) as steady:
        site = steady.site
        namespace = site.cluster.namespace
        with (
            Load(site.address(), clients=4, fresh=2, pause_s=0.03, oracle=answer) as load,
            Mortal(kubernetes.Connection(), namespace) as mortal,
        ):
            other = Site(mortal)
            with pytest.raises(KilledError):
                change(
                    other,
                    models["better"],
                    CANARY,
                    ONE,
                    attempt="killed",
                    means={"sleep": Hook(mortal.kill)},
                    objectives=LENIENT,
                )
            left = site.decision()
            assert (left.live, left.stage) == (steady.live, "shared")
            back = site.rollback("back")
            assert (back.revision, back.previous, back.changed) == (steady.live, None, True)
            converged(load, "good", "back")
            steady.assert_withdrawn("back", "a rollback was asked for")
            once_more = site.rollback("back")
            assert (once_more.revision, once_more.changed) == (steady.live, False)
            drained(site, left.candidate)
        assert load.failures == []
        assert load.window("back").of(fresh=True).versions.keys() == {"good"}


def test_back_to_a_revision_whose_deployment_is_gone(models):
    with steady_site(models) as steady:
        site = steady.site
        better = site.deploy(models["better"], PLAIN, ONE, attempt="2")
        steady.kubectl("delete", "deployment", revision_name(NAME, steady.live))
        with Load(site.address(), clients=2, fresh=1, pause_s=0.05, oracle=answer) as load:
            back = site.rollback("3")
            load.mark("back")
            again = site.deploy(models["better"], PLAIN, ONE, attempt="4")
        assert load.failures == []
        assert (back.revision, back.previous) == (steady.live, better.revision)
        assert load.window("back").of(fresh=True).versions["good"] > 0
        # What was live once is deployed again like any other release.
        assert (again.revision, again.previous, again.changed) == (better.revision, steady.live, True)

        # Without its record there is no way back to it; but nothing else depends on it.
        record = site.decision().releases[steady.live]
        steady.kubectl("delete", "configmap", record)
        with pytest.raises(InputError, match=rf"{record}.*no such ConfigMap"):
            site.rollback("5")
        assert (site.decision().live, site.decision().candidate) == (better.revision, None)
        assert site.selector() == only(NAME, better.revision)
        third = site.deploy(models["better"], PLAIN, replace(ONE, drain_s=3.0), attempt="6")
        assert (third.previous, third.changed) == (better.revision, True)
