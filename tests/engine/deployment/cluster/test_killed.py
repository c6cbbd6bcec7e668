"""Drivers of real pods that die or are told to end, under load: not one request fails, and the next ends the work."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import only
from tests.engine.deployment.cluster.crashes import Fault, Faulty, KilledError, Point, Watcher, in_turn
from tests.engine.deployment.cluster.load import Load
from tests.engine.deployment.cluster.rollouts import CANARY, PLAIN
from tests.engine.deployment.cluster.served import NAME, answer
from tests.engine.deployment.cluster.steady import LENIENT, ONE, change, replicas, steady_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.engine.deployment.cluster.models import Models
    from tests.engine.deployment.cluster.rollouts import Site
    from tests.engine.deployment.cluster.steady import Steady

pytestmark = pytest.mark.kubernetes

LEASE_S = 2
# So long that the test ends it.
LONG = replace(CANARY, weights=(0.5,), bake_s=120.0)
BRIEF = replace(LONG, bake_s=2.0, hold_s=60.0)
FAULTS = (
    Fault(Point("PATCH services", 2), "killed", "with its answer"),  # the switch
    Fault(
        Point("PATCH deployments/scale", 1), "killed", "with its answer"
    ),  # none of these pods is ready yet
    Fault(
        Point("PATCH services", 3), "killed", "before it was sent"
    ),  # it serves, but that isn't written down
)


@pytest.fixture
def steady(models: Models) -> Iterator[Steady]:
    with steady_site(models) as found:
        yield found


@contextlib.contextmanager
def loaded(site: Site) -> Iterator[Load]:
    """Requests over kept and fresh connections, none of which may fail."""
    with Load(site.address(), clients=4, fresh=2, pause_s=0.01, oracle=answer) as load:
        yield load
    assert load.failures == []
    assert sum(load.versions.values()) > 0


def wait_until(condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


@contextlib.contextmanager
def driver(
    site: Site, delivered: kubernetes.Delivered, attempt: str, log: Path
) -> Iterator[subprocess.Popen]:
    """A process that deploys what was delivered."""
    spec = {
        "target": "kubernetes",
        "namespace": site.cluster.namespace,
        "name": NAME,
        "delivered": delivered.map_name,
        "attempt": attempt,
        "reach": "direct",
        "lease_s": LEASE_S,
    }
    request = {"schema_version": 1, "step": "deploy", "spec": spec, "inputs": {}, "store": log.as_uri()}
    command = [sys.executable, "-m", "airflow_model_deploy.engine.cli", "run", "deploy"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--json", json.dumps(request)], stdout=out, stderr=subprocess.STDOUT
        )
        try:
            yield process
        except BaseException:
            print(log.read_text())
            raise
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("fault", in_turn(FAULTS))
def test_killed_at(fault: Fault, steady: Steady, models: Models) -> None:
    site, two = steady.site, replace(ONE, replicas=2)
    watcher = Watcher(kubernetes.Cluster(kubernetes.Connection(), site.cluster.namespace), 1)
    with loaded(site) as load:
        faulty = Faulty(kubernetes.Connection(), site.cluster.namespace, watcher, fault)
        with pytest.raises(KilledError):
            change(site, models["better"], PLAIN, two, attempt="killed", means={"cluster": faulty})
        site.lease_s = LEASE_S
        again = site.deploy(models["better"], PLAIN, two, attempt="killed")
        load.mark("promoted")
        wait_until(lambda: len(load.window("promoted")) > 50, "no load")
        decision = site.decision()
        assert (decision.live, decision.candidate) == (again.revision, None)
        assert site.selector() == only(NAME, again.revision)
        assert [replicas(site, one) for one in (steady.live, again.revision)] == [0, 2]
    assert set(load.window("promoted").of(fresh=True).versions) == {"better"}
    assert watcher.problems == []


def told_to_end(steady: Steady, models: Models, tmp_path: Path) -> None:
    """It gives the traffic back."""
    site = steady.site
    delivered = site.deliver(models["better"], LONG, ONE, objectives=LENIENT)
    with loaded(site) as load, driver(site, delivered, "told", tmp_path / "log") as process:
        wait_until(lambda: load.versions["better"] > 20, "the canary gets no requests")
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 75  # may be made again
        assert time.monotonic() - told < 10
        steady.assert_withdrawn("told", "SIGTERM", "interrupted")
        load.mark("back")
        wait_until(lambda: len(load.window("back").of(fresh=True)) > 100, "no load")
    late = list(load.window("back").of(fresh=True))[-50:]
    assert {one.version for one in late} == {"good"}


def killed(steady: Steady, models: Models, tmp_path: Path) -> None:
    """The next one ends its work."""
    site = steady.site
    delivered = site.deliver(models["better"], BRIEF, ONE, objectives=LENIENT)
    with loaded(site) as load:
        with driver(site, delivered, "killed", tmp_path / "first") as process:
            wait_until(lambda: load.versions["better"] > 5, "the canary gets no requests")
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert site.decision().stage == "shared"  # nothing was written by a hand that is dead
        with driver(site, delivered, "killed", tmp_path / "second") as process:
            assert process.wait(90) == 0, (tmp_path / "second").read_text()
    outcome = site.decision().outcome
    assert outcome is not None
    assert (outcome.attempt, outcome.result) == ("killed", "promoted")
    assert site.decision().live == delivered.revision


@pytest.mark.parametrize("ends", in_turn((killed, told_to_end)))
def test_a_process_in_the_middle_of_a_canary(
    ends: Callable[..., None], steady: Steady, models: Models, tmp_path: Path
) -> None:
    ends(steady, models, tmp_path)
