"""Two drivers of one service, and a driver that is cut off: one writes at a time, and who lost its turn stops."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Connection
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import DECISION
from airflow_model_deploy.engine.errors import UnavailableError
from tests.engine.deployment.cluster.crashes import Fault, Point
from tests.engine.deployment.cluster.faults import cuttable
from tests.engine.deployment.cluster.grounds import ground
from tests.engine.deployment.cluster.scenarios import Scenario
from tests.engine.deployment.cluster.served import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.engine.deployment.cluster.grounds import Ground

pytestmark = pytest.mark.kubernetes

SHORT_S = 3


@pytest.fixture(scope="module")
def _place() -> Iterator[Ground]:
    with ground() as found:
        Scenario("first", found).recorded()
        yield found


@pytest.fixture
def place(_place: Ground) -> Iterator[Ground]:
    """A service that works; drivers' turns are short."""
    _place.lease_s = SHORT_S
    yield _place
    _place.connection = Connection()
    _place.doings.clear()
    _place.cluster.delete("Lease", NAME)
    Scenario("blue-green", _place).recorded()


def take_lease(place: Ground) -> None:
    """What another driver does first."""
    place.cluster.patch("Lease", NAME, {"spec": {"holderIdentity": "somebody-else"}})


def holder(place: Ground) -> str:
    found = place.cluster.get("Lease", NAME)
    return str(found and found["spec"]["holderIdentity"])


def test_a_second_driver_is_refused_by_the_first_ones_name(place: Ground) -> None:
    refused: list[UnavailableError] = []

    def second() -> None:
        with pytest.raises(UnavailableError, match="held by") as caught:
            place.deploy(place.release(), "the second")
        refused.append(caught.value)
        assert holder(place) in str(caught.value)

    place.doings.append(second)
    Scenario("canary", place).recorded()
    assert len(refused) == 1


def test_the_turn_of_a_driver_that_died_is_taken_when_it_is_over(place: Ground) -> None:
    scenario = Scenario("canary", place)
    scenario.begin()
    began = time.monotonic()
    scenario.act(Fault(Point("PATCH services", 2), "killed", "with its answer"))
    dead, died = holder(place), time.monotonic()
    scenario.act()
    assert time.monotonic() - died >= SHORT_S
    assert time.monotonic() - began < 10 * SHORT_S
    assert scenario.flaws() == []
    assert dead != holder(place) == ""


def test_a_driver_whose_turn_was_taken_writes_no_more(place: Ground) -> None:
    writes: list[str] = []

    def lose() -> None:
        take_lease(place)
        time.sleep(SHORT_S / 2)  # by then its renewal has told it
        writes.append(version(place))

    place.doings.append(lose)
    with pytest.raises(UnavailableError, match="somebody-else"):
        place.deploy(place.release("canary"), "loses its turn")
    assert writes == [version(place)]
    assert place.decision().stage == "shared"
    assert holder(place) == "somebody-else"
    assert place.watcher.problems == []


def test_a_write_that_comes_too_late_is_refused(place: Ground) -> None:
    def overtake() -> None:
        take_lease(place)
        found = place.cluster.get("Service", NAME)
        assert found is not None
        decision = json.loads(found["metadata"]["annotations"][DECISION])
        theirs = decision | {"generation": decision["generation"] + 1, "attempt": "somebody else's"}
        metadata: dict[str, Any] = {"annotations": {DECISION: json.dumps(theirs)}}
        place.cluster.patch("Service", NAME, {"metadata": metadata})

    # It doesn't know as yet that its turn was taken: it is the version of the Service that stops it.
    place.lease_s = 60
    place.doings += [lambda: None, overtake]
    with pytest.raises(UnavailableError, match=r"overtaken.*somebody else's"):
        place.deploy(place.release("canary"), "comes too late")
    decision = place.decision()
    assert (decision.attempt, decision.stage, decision.step) == ("somebody else's", "shared", 0)
    assert holder(place) == "somebody-else"


def test_a_service_that_was_deleted_is_made_again_by_the_next_release_only(place: Ground) -> None:
    place.doings.append(lambda: place.cluster.delete("Service", NAME))
    with pytest.raises(UnavailableError, match="gone: somebody has deleted it"):
        place.deploy(place.release("canary"), "left alone")
    assert place.cluster.get("Service", NAME) is None
    place.watcher.problems.clear()  # nobody was reached: as somebody wanted it
    Scenario("blue-green", place).recorded()


def test_a_cluster_that_is_away_for_a_while_costs_time_only(
    place: Ground, kubeconfig: dict[str, Any]
) -> None:
    place.lease_s = 15
    with cuttable(kubeconfig) as (way, through):
        place.connection = Connection(kubeconfig=through)

        def cut() -> None:
            way.cut()
            threading.Timer(SHORT_S, way.mend).start()

        place.doings += [cut, lambda: None, lambda: None, cut]
        Scenario("canary", place).recorded()
    assert place.doings == []


def test_a_driver_that_comes_back_after_its_turn_leaves_the_work_of_another_alone(
    place: Ground, kubeconfig: dict[str, Any]
) -> None:
    left: list[str] = []
    with cuttable(kubeconfig) as (way, through):

        def cut() -> None:
            way.cut()
            place.connection = Connection()
            place.rollback("meanwhile")  # takes the turn when it is over
            left.append(version(place))
            way.mend()

        place.connection = Connection(kubeconfig=through)
        place.doings.append(cut)
        with pytest.raises(UnavailableError, match="Lease"):
            place.deploy(place.release("canary"), "cut off")
    assert left == [version(place)]
    outcome = place.decision().outcome
    assert outcome is not None
    assert (outcome.attempt, outcome.result) == ("meanwhile", "rolled back")
    assert place.watcher.problems == []


def version(place: Ground) -> str:
    """Of all that a driver writes: the Service and the Deployments."""
    service = place.cluster.get("Service", NAME) or {"metadata": {}}
    return f"{service['metadata'].get('resourceVersion')} {place.watcher.scales()}"
