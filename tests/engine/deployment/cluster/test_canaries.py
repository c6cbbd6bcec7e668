"""Verdicts on real pods: a release that is worse goes back, one that is better gets through, no data is not success."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import is_ready
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import (
    every,
    only,
    revision_name,
)
from airflow_model_deploy.engine.errors import RolloutError
from airflow_model_deploy.engine.packaging import Objectives
from tests.engine.deployment.cluster.load import Load
from tests.engine.deployment.cluster.rollouts import CANARY, PLAIN
from tests.engine.deployment.cluster.served import HIGH, NAME, answer
from tests.engine.deployment.cluster.steady import (
    LENIENT,
    ONE,
    Hook,
    change,
    converged,
    mine,
    pods_of,
    replicas,
    steady_site,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.deployment.cluster.models import Models
    from tests.engine.deployment.cluster.rollouts import Site
    from tests.engine.deployment.cluster.steady import Steady

pytestmark = pytest.mark.kubernetes
# One step to half of the requests, and time enough on a machine that is busy.
HALF = replace(CANARY, weights=(0.5,), bake_s=2.0, hold_s=60.0)
BRIEF = replace(CANARY, weights=(0.5,), bake_s=1.0, hold_s=1.0, interval_s=0.5)


@pytest.fixture(scope="module")
def steady(models: Models) -> Iterator[Steady]:
    with steady_site(models) as found:
        yield found


def ask(site: Site, high_share: float = 0.0, **options: Any) -> Load:
    """Requests over new connections, so that half of them find the canary."""
    return Load(
        site.address(),
        **{"clients": 4, "fresh": 4, "pause_s": 0.005} | options,
        high_share=high_share,
        high=HIGH,
        oracle=answer,
    )


def last_phase(site: Site) -> dict[str, Any]:
    outcome = site.decision().outcome
    assert outcome is not None
    return dict(outcome.details["phases"][-1])


def test_two_errors_in_a_hundred_beside_a_stable_without(steady, models):
    with ask(steady.site, 0.02) as load:
        with pytest.raises(RolloutError, match=r"canary 50% fails") as caught:
            steady.site.deploy(models["fails_on_some"], HALF, ONE, attempt="5xx", objectives=LENIENT)
        converged(load, "good", "back")
        wait_requests(load, "back", 100)
    assert "requests answered with an error" in str(caught.value)
    assert set(load.seen.reasons) == {"500"}
    assert load.window("back").failures == []
    steady.assert_withdrawn("5xx", "answered with an error")
    phase = last_phase(steady.site)
    assert phase["canary"]["errors"] > phase["stable"]["errors"] == 0


def test_answers_that_take_too_long(steady, models):
    tight = Objectives(latency_ms=250.0, latency_share=0.9, min_requests=20)
    with (
        ask(steady.site, 0.4, clients=3, fresh=3, pause_s=0.02, timeout_s=60.0) as load,
        pytest.raises(RolloutError, match=r"canary 50% fails") as caught,
    ):
        steady.site.deploy(models["slow_on_some"], HALF, ONE, attempt="slow", objectives=tight)
    assert "successful requests over 250 ms" in str(caught.value)
    assert load.failures == []
    steady.assert_withdrawn("slow", "over 250 ms")
    assert last_phase(steady.site)["canary"]["errors"] == 0


def end_the_server(steady: Steady) -> None:
    candidate = steady.site.decision().candidate
    (pod,) = steady.site.pods(candidate)
    program = "import os, signal; os.kill(1, signal.SIGTERM)"
    steady.kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", program)
    # It serves on for a moment, and the node notices its end a moment later.
    while not sum(pods_of(steady.site, candidate).values()):
        time.sleep(0.1)


def test_a_server_that_ended_while_it_was_watched(steady, models):
    means = {"sleep": Hook(lambda: end_the_server(steady))}
    with ask(steady.site, pause_s=0.05), pytest.raises(RolloutError, match="canary 50% fails") as caught:
        change(steady.site, models["better"], HALF, ONE, attempt="restart", means=means, objectives=LENIENT)
    # Whichever is seen first: that it is away, or that it was started again.
    assert "0 of 1 of the canary's pods are ready" in str(caught.value) or "restarts of" in str(caught.value)
    steady.assert_withdrawn("restart", "of the canary's")


def test_a_server_that_ended_between_two_watches(steady, models):
    def log(line: str) -> None:
        if line.endswith("gets all requests"):
            end_the_server(steady)

    with (
        ask(steady.site, pause_s=0.05),
        pytest.raises(RolloutError, match="after the switch fails") as caught,
    ):
        change(
            steady.site, models["better"], HALF, ONE, attempt="gap", means={"log": log}, objectives=LENIENT
        )
    assert "1 restarts of the canary's containers" in str(caught.value)
    steady.assert_withdrawn("gap", "restarts of")


def test_a_person_who_takes_the_traffic_back_is_not_overruled(steady, models):
    def take():
        steady.patch_service(mine(steady.live))

    means = {"sleep": Hook(take)}
    # Seen while it is watched, long before it would be decided.
    free = replace(HALF, bake_s=60.0, interval_s=0.5)
    with (
        ask(steady.site, pause_s=0.05) as load,
        pytest.raises(RolloutError, match=r"changed by another writer.*kubectl-patch set .*selector"),
    ):
        change(steady.site, models["better"], free, ONE, attempt="taken", means=means, objectives=LENIENT)
    assert load.failures == []
    steady.assert_withdrawn("taken", "changed by another writer")


def test_no_data_is_not_success(steady, models):
    with pytest.raises(RolloutError, match=r"canary 50% can't be decided") as caught:
        steady.site.deploy(models["better"], BRIEF, ONE, attempt="quiet")
    assert "No data is not success" in str(caught.value)
    assert "0 requests counted of the canary, 20 wanted" in str(caught.value)
    steady.assert_withdrawn("quiet", "can't be decided")
    assert last_phase(steady.site)["status"] == "inconclusive"


def test_a_bad_stable_release_keeps_no_good_one_out_and_lets_no_bad_one_in(models):
    with steady_site(models, "fails_on_some") as steady:
        site = steady.site
        with ask(site, 0.2):
            with pytest.raises(RolloutError, match=r"1\.00% allowed"):
                # Its pods are others, its answers the same.
                site.deploy(
                    models["fails_on_some"],
                    HALF,
                    replace(ONE, drain_s=3.0),
                    attempt="as bad",
                    objectives=LENIENT,
                )
            steady.assert_withdrawn("as bad", "allowed")
            good = site.deploy(models["good"], HALF, ONE, attempt="good", objectives=LENIENT)
        decision = site.decision()
        assert (decision.live, decision.previous) == (good.revision, steady.live)
        assert decision.outcome.result == "promoted"
        first, last = decision.outcome.details["phases"]
        assert (first["status"], last["status"]) == ("pass", "pass")
        assert first["stable"]["errors"] > 0 == first["canary"]["errors"] == last["canary"]["errors"]


def test_held_where_it_is_while_neither_is_healthy_until_a_fix_gets_through(models):
    with steady_site(models) as steady:
        site, live = steady.site, steady.live
        broken = {
            "strategy": {"type": "Recreate", "rollingUpdate": None},
            "template": {"spec": {"nodeSelector": {"nobody": "has-this"}}},
        }

        def break_the_live_one():
            site.cluster.patch("Deployment", revision_name(NAME, live), {"spec": broken})
            while any(map(is_ready, site.pods(live))):
                time.sleep(0.1)

        means = {"sleep": Hook(break_the_live_one)}
        with pytest.raises(RolloutError, match="held: neither revision is healthy") as caught:
            change(site, models["better"], BRIEF, ONE, attempt="1", means=means)
        assert f"revision {live}, which served before, has no ready pod" in str(caught.value)
        assert "can't be decided" in str(caught.value)
        held = site.decision()
        assert (held.live, held.stage, held.outcome.result) == (live, "shared", "held")
        assert site.selector() == every(NAME)
        with Load(site.address(), clients=1, fresh=1, pause_s=0.02) as load:
            # Whoever answers is better than nobody; a rollback can't do better yet.
            with pytest.raises(RolloutError, match="neither revision is healthy"):
                site.rollback("2")
            load.mark("held")
            wait_requests(load, "held", 20)
            fix = site.deploy(models["good"], PLAIN, replace(ONE, drain_s=3.0), attempt="3")
            load.mark("fixed")
            wait_requests(load, "fixed", 20)
        assert load.failures == []
        assert set(load.window("fixed").versions) == {"good"}
        after = site.decision()
        assert (after.live, after.candidate, after.outcome.result) == (fix.revision, None, "promoted")
        assert site.selector() == only(NAME, fix.revision)
        assert list(pods_of(site, fix.revision).values()) == [0]
        assert replicas(site, live) == replicas(site, held.candidate) == 0


def wait_requests(load: Load, mark: str, count: int) -> None:
    while len(load.window(mark)) < count:
        time.sleep(0.05)
