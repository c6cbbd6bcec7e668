"""A service that was stopped, and started again by the release that it had."""

from __future__ import annotations

import pytest

from airflow_model_deploy.engine.deployment import kubernetes
from tests.engine.deployment.cluster.grounds import REPLICAS, ground
from tests.engine.deployment.cluster.served import NAME

pytestmark = pytest.mark.kubernetes


def test_a_stopped_service_is_started_by_its_own_release() -> None:
    with ground() as place:
        release = place.release()
        place.deploy(release, "first")
        kubernetes.stop(place.cluster, NAME)
        assert set(place.watcher.scales().values()) == {0}
        again = place.deploy(release, "again")
        assert again.result is not None
        assert not again.result.changed
        assert place.watcher.scales() == {place.revision(release): REPLICAS}
