"""One writer at a time, on a real API server."""

from __future__ import annotations

import time

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    Cluster,
    Connection,
    LostError,
    held,
)
from airflow_model_deploy.engine.errors import UnavailableError
from tests.engine.deployment.cluster.faults import Flaky

pytestmark = pytest.mark.kubernetes


class Dead(Cluster):
    """A renewer that reaches nothing, as that of a process that was stopped."""

    def _send(self, *arguments, **options):
        raise LostError("a renewal", found="stopped")


def spec(cluster: Cluster) -> dict:
    found = cluster.get("Lease", "web")
    assert found is not None
    return dict(found["spec"])


def test_a_lease_is_renewed_while_it_is_held_and_free_afterwards(namespace):
    cluster = Flaky(Connection(), namespace)
    with held(cluster, "web", duration_s=2) as lease:
        first = spec(cluster)
        assert first["holderIdentity"] == lease.identity
        time.sleep(2.5)
        lease.require()
        assert spec(cluster)["renewTime"] > first["renewTime"]
        assert spec(cluster)["acquireTime"] == first["acquireTime"]
    assert spec(cluster)["holderIdentity"] == ""
    assert [call.split()[0] for call in cluster.calls if "leases" in call].count("PUT") == 1  # the release

    began = time.monotonic()
    with held(cluster, "web", duration_s=2) as again:
        assert again.identity != lease.identity
    assert time.monotonic() - began < 1


def test_a_second_holder_is_refused_by_the_first_ones_name(cluster):
    with held(cluster, "web", duration_s=2) as lease:
        with pytest.raises(UnavailableError, match=lease.identity), held(cluster, "web", duration_s=2):
            pass
        with pytest.raises(UnavailableError, match=lease.identity), held(cluster, "web", wait_s=0):
            pass
        lease.require()


def test_a_second_holder_may_wait_for_the_first_to_end(cluster):
    with held(cluster, "web", duration_s=2) as first:
        first.ended.set()  # as if its process had died: no renewal, no release
        first.release = lambda: None
    began = time.monotonic()
    with held(cluster, "web", duration_s=2, wait_s=30) as second:
        assert time.monotonic() - began >= 1.5  # not before the first one's time was over
        second.require()
        assert spec(cluster)["holderIdentity"] == second.identity
        assert spec(cluster)["leaseTransitions"] == 2


def test_a_holder_whose_renewals_fail_stops_before_another_may_begin(cluster):
    with held(cluster, "web", duration_s=2, renewer=Dead(Connection(), "-", patience_s=0)) as lease:
        began = time.monotonic()
        lease.require()
        while time.monotonic() - began < 1.7:
            time.sleep(0.05)
        with pytest.raises(UnavailableError, match="couldn't be renewed"):
            lease.require()


def test_a_holder_whose_lease_was_taken_is_told_by_whom(cluster, kubectl):
    with held(cluster, "web", duration_s=3) as lease:
        kubectl(
            "patch", "lease", "web", "--type=merge", '--patch={"spec": {"holderIdentity": "somebody-else"}}'
        )
        time.sleep(1.5)
        with pytest.raises(UnavailableError, match="somebody-else"):
            lease.require()
    assert spec(cluster)["holderIdentity"] == "somebody-else"


def test_a_touched_record_and_a_lost_answer_lose_nothing(cluster, kubectl):
    renewer = Flaky(Connection(), cluster.namespace)
    with held(cluster, "web", duration_s=3, renewer=renewer) as lease:
        kubectl("label", "lease", "web", "touched=yes")
        renewer.after = [LostError("a renewal", found="the connection died")]
        time.sleep(3.5)
        lease.require()
