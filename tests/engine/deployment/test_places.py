"""What every place does alike: one behaviour, whoever runs the processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.errors import RolloutError, UnavailableError
from tests.engine.deployment.places import Setting, act_elsewhere, deployed, kill, version
from tests.engine.deployment.traffic import Check, Result, driving
from tests.engine.serving.servables import until

if TYPE_CHECKING:
    from pathlib import Path


def summary(setting: Setting) -> tuple[str | None, str | None, str | None, bool]:
    status = setting.room.status(setting.service)
    return status.live, status.previous, status.candidate, status.serving


def test_first_second_same_back_and_forth_without_a_failed_request(setting: Setting) -> None:
    first = deployed(setting, setting.release("v1"), check := Check())
    assert (first.changed, first.previous, first.url) == (True, None, setting.service.url)
    # Before traffic at the private port, then at the public one.
    assert check.urls[0] != setting.service.url
    assert check.urls[1:] == [setting.service.url]

    with driving(setting.service) as traffic:
        second = deployed(setting, setting.release("v2", 2), Check(2))
        assert (second.changed, second.previous) == (True, first.revision)
        until(lambda: traffic.versions["v2"] > 20, "the new one answers")
        assert version(setting.service) == "v2"

        before = summary(setting)
        again = deployed(setting, setting.release("v2", 2), check := Check(2))
        assert (again.changed, again.revision, again.previous) == (False, second.revision, first.revision)
        assert check.urls == [setting.service.url]
        assert summary(setting) == before

        back = setting.room.rollback(setting.service, check=Check())
        assert (back.revision, back.previous, back.changed) == (first.revision, second.revision, True)
        assert version(setting.service) == "v1"
        forth = setting.room.rollback(setting.service, check=Check(2))
        assert (forth.revision, forth.previous) == (second.revision, first.revision)
        assert version(setting.service) == "v2"
    assert traffic.failures == []
    assert summary(setting) == (second.revision, first.revision, None, True)


def test_what_fails_its_check_stays_out_or_is_taken_back(setting: Setting) -> None:
    with pytest.raises(RolloutError, match="largest difference"):
        deployed(setting, setting.release("v1"), Check(5))
    assert summary(setting) == (None, None, None, False)
    first = deployed(setting, setting.release("v1"), Check())

    def only_in_private(url: str, release: Path) -> Result:
        return Result(url != setting.service.url, "not in public")

    with driving(setting.service) as traffic:
        with pytest.raises(RolloutError, match="largest difference"):
            deployed(setting, setting.release("v2", 2), Check())
        assert set(traffic.versions) == {"v1"}
        with pytest.raises(RolloutError, match="not in public"):
            deployed(setting, setting.release("v2", 2), only_in_private)
        with pytest.raises(RolloutError, match="previous None"):
            setting.room.rollback(setting.service, check=Check())
    assert traffic.failures == []
    assert summary(setting) == (first.revision, None, None, True)
    assert version(setting.service) == "v1"


@pytest.mark.parametrize("hang_at", [1, 2], ids=["before the switch", "after the switch"])
def test_a_deployment_killed_anywhere_is_completed_by_the_next(setting: Setting, hang_at: int) -> None:
    first = deployed(setting, setting.release("v1"), Check())
    release = setting.release("v2", 2)
    with driving(setting.service) as traffic:
        process = act_elsewhere(setting, release, hang_at)
        with pytest.raises(UnavailableError, match=f"process {process.pid}.* is changing it"):
            deployed(setting, release, Check(2))
        kill(process)
        again = deployed(setting, release, Check(2))
    assert traffic.failures == []
    assert (again.changed, again.previous) == (True, first.revision)
    assert summary(setting) == (again.revision, first.revision, None, True)


def test_a_rollback_killed_behind_the_switch_is_completed_not_undone(setting: Setting) -> None:
    first = deployed(setting, setting.release("v1"), Check())
    deployed(setting, setting.release("v2", 2), Check(2))
    kill(act_elsewhere(setting, None, 2, "rollback"))
    back = setting.room.rollback(setting.service, check=Check(), attempt="a")
    assert (back.revision, back.changed) == (first.revision, True)
    # Whoever lost the answer asks again in the same name: the bad one stays out.
    again = setting.room.rollback(setting.service, check=Check(), attempt="a")
    assert (again.revision, again.changed) == (first.revision, False)
    assert version(setting.service) == "v1"
    forth = setting.room.rollback(setting.service, check=Check(2), attempt="b")
    assert (forth.previous, forth.changed, version(setting.service)) == (first.revision, True, "v2")
    setting.room.stop(setting.service)
    with pytest.raises(RolloutError, match="was stopped since"):
        setting.room.rollback(setting.service, check=Check(), attempt="b")


def test_what_a_killed_deployment_made_live_is_checked_before_the_next(setting: Setting) -> None:
    first = deployed(setting, setting.release("v1"), Check())
    with driving(setting.service) as traffic:
        kill(act_elsewhere(setting, setting.release("v2", 2), 2))
        with pytest.raises(RolloutError, match="largest difference"):
            deployed(setting, setting.release("v3", 3), Check(5))
        assert summary(setting) == (first.revision, None, None, True)
        kill(act_elsewhere(setting, setting.release("v2", 2), 2))
        third = deployed(setting, setting.release("v3", 3), lambda *_: Result(True, "fine"))
    assert traffic.failures == []
    assert third.previous not in (None, first.revision)
    assert version(setting.service) == "v3"


def test_a_first_release_that_nobody_saw_to_be_right_makes_way(setting: Setting) -> None:
    kill(act_elsewhere(setting, setting.release("v1"), 2))
    second = deployed(setting, setting.release("v2", 2), Check(2))
    assert summary(setting) == (second.revision, None, None, True)
    with setting.room.reach(setting.service) as url:
        assert url == setting.service.url


def test_stop_ends_it_and_a_later_deployment_starts_it_again(setting: Setting) -> None:
    release = setting.release("v1")
    first = deployed(setting, release, Check())
    with pytest.raises(RolloutError, match="previous None"):
        setting.room.rollback(setting.service, check=Check())
    setting.room.stop(setting.service)
    assert summary(setting) == (None, None, None, False)
    setting.room.stop(setting.service)
    again = deployed(setting, release, Check())
    assert (again.changed, again.revision) == (True, first.revision)
    assert summary(setting) == (first.revision, None, None, True)
