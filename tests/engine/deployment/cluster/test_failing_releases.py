"""Releases that can't serve: told in the cluster's own words, and what serves goes on without a failed request."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes import RolloutInterruptedError
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import wait_ready
from airflow_model_deploy.engine.deployment.targets.kubernetes.interruption import Interruption
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import NO_REVISION, REVISION, only
from airflow_model_deploy.engine.errors import RolloutError
from airflow_model_deploy.engine.packaging import Rollout, Workload
from tests.engine.deployment.cluster.load import Load
from tests.engine.deployment.cluster.rollouts import PLAIN
from tests.engine.deployment.cluster.served import NAME, answer
from tests.engine.deployment.cluster.steady import (
    LENIENT,
    ONE,
    Hook,
    change,
    drained,
    pods_of,
    replicas,
    steady_site,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.deployment.cluster.models import Models
    from tests.engine.deployment.cluster.steady import Steady

pytestmark = pytest.mark.kubernetes
BRIEFLY = {"deadline_s": 1.0, "log": print}


@pytest.fixture(scope="module")
def steady(models: Models) -> Iterator[Steady]:
    with steady_site(models) as found:
        yield found


@contextmanager
def asked(steady: Steady) -> Iterator[None]:
    """The service is asked all the time, and only the live revision answers."""
    with Load(steady.site.address(), clients=3, fresh=2, pause_s=0.05, oracle=answer) as load:
        yield
    assert load.failures == []
    assert set(load.versions) == {"good"}


def test_an_image_that_is_not_there(steady, models):
    with asked(steady), pytest.raises(RolloutError) as caught:
        steady.site.deploy(models["good"], PLAIN, ONE, image=models.missing, attempt="image")
    words = str(caught.value)
    assert "ImagePull" in words
    assert "not found" in words
    assert "0" * 64 in words
    steady.assert_withdrawn("image", "not found")


def test_a_server_that_refuses_its_model(steady, models):
    with asked(steady), pytest.raises(RolloutError) as caught:
        steady.site.deploy(models["crashes_on_start"], PLAIN, ONE, attempt="crash")
    words = str(caught.value)
    assert "CrashLoopBackOff" in words
    assert "code 3" in words
    assert "its last words: servable refused: " in words
    assert "declared is [-1, 5]" in words
    steady.assert_withdrawn("crash", "code 3")


def test_a_model_that_needs_more_memory_than_it_may_have(steady, models):
    with asked(steady), pytest.raises(RolloutError) as caught:
        steady.site.deploy(models["needs_memory"], PLAIN, ONE, attempt="memory")
    assert "OOMKilled" in str(caught.value)
    steady.assert_withdrawn("memory", "OOMKilled")


def test_a_quota_refuses_the_new_pods(steady, models):
    steady.kubectl("create", "quota", "few", "--hard=pods=1")
    try:
        with asked(steady), pytest.raises(RolloutError) as caught:
            steady.site.deploy(models["better"], PLAIN, ONE, attempt="quota")
    finally:
        steady.kubectl("delete", "quota", "few")
    words = str(caught.value)
    assert "exceeded quota: few" in words
    assert "limited: pods=1" in words
    steady.assert_withdrawn("quota", "exceeded quota")


@pytest.mark.parametrize("strategy", ["blue-green", "canary"])
def test_wrong_answers_never_get_a_request(steady, models, strategy):
    rollout = replace(PLAIN, strategy=strategy)
    with asked(steady), pytest.raises(RolloutError, match="gives wrong answers"):
        steady.site.deploy(models["wrong"], rollout, ONE, attempt=strategy)
    steady.assert_withdrawn(strategy, "gives wrong answers")


def test_a_server_that_never_gets_ready(steady, models):
    rollout = Rollout(bake_s=0.0, ready_timeout_s=10.0)
    with asked(steady), pytest.raises(RolloutError) as caught:
        steady.site.deploy(models["never_ready"], rollout, ONE, attempt="late")
    words = str(caught.value)
    assert "pods aren't ready within 10 s" in words
    assert "0 of 1 are" in words
    assert "Startup probe failed" in words
    steady.assert_withdrawn("late", "pods aren't ready within 10 s")


def test_a_rolling_replacement_gives_its_pods_back(site, models):
    two = Workload(replicas=2, drain_s=2.0)
    live = site.deploy(models["good"], PLAIN, two).revision
    rollout = Rollout(strategy="rolling", max_surge=0, max_unavailable=1, bake_s=1.0, interval_s=0.5)
    with Load(site.address(), clients=3, fresh=2, pause_s=0.05, oracle=answer) as load:
        with pytest.raises(RolloutError, match="gives wrong answers"):
            site.deploy(models["wrong"], rollout, two, attempt="1")
        decision = site.decision()
        assert (decision.live, decision.candidate, decision.outcome.result) == (live, None, "rolled back")
        assert replicas(site, decision.outcome.revision) == 0
        assert replicas(site, live) == len(wait_ready(site.cluster, only(NAME, live), 2, **BRIEFLY)) == 2
        assert set(load.versions) == {"good"}

        means = {"sleep": Hook(interrupt)}
        with pytest.raises(RolloutInterruptedError):
            change(site, models["better"], rollout, two, attempt="2", means=means, objectives=LENIENT)
        decision = site.decision()
        assert (decision.live, decision.candidate, decision.outcome.result) == (live, None, "interrupted")
        assert replicas(site, decision.outcome.revision) == 0
        assert replicas(site, live) == 2
        drained(site, decision.outcome.revision)
    assert load.failures == []


def interrupt():
    raise Interruption("told to end")  # as the handler of SIGTERM does


def test_a_first_release_that_is_wrong_serves_nobody(site, models):
    with pytest.raises(RolloutError, match="gives wrong answers"):
        site.deploy(models["wrong"], PLAIN, ONE, attempt="1")
    decision = site.decision()
    assert (decision.live, decision.previous, decision.candidate) == (None, None, None)
    assert decision.outcome.result == "rolled back"
    assert site.selector()[REVISION] == NO_REVISION
    assert replicas(site, decision.outcome.revision) == 0

    with pytest.raises(RolloutError, match="live nothing, previous none"):
        site.rollback("2")
    right = site.deploy(models["good"], PLAIN, ONE, attempt="3")
    assert (site.decision().live, right.previous) == (right.revision, None)
    assert site.selector() == only(NAME, right.revision)
    with pytest.raises(RolloutError, match="previous none"):
        site.rollback("4")
    assert list(pods_of(site, right.revision).values()) == [0]
    assert site.decision().live == right.revision
