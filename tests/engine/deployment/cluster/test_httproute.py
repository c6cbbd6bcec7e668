from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes import routing
from airflow_model_deploy.engine.errors import InputError, RolloutError
from airflow_model_deploy.engine.packaging import Rollout, Workload
from tests.engine.deployment.cluster.gateways import Gateway, route_api
from tests.engine.deployment.cluster.rollouts import PLAIN

if TYPE_CHECKING:
    from tests.engine.deployment.cluster.models import Models
    from tests.engine.deployment.cluster.rollouts import Site

pytestmark = [pytest.mark.kubernetes, pytest.mark.xdist_group("httproute")]

BEHIND = Workload(replicas=1, gateway="infra/public", hostnames=("tiny.example.org",))
# Nothing sends requests by the weights here, so there is nothing to judge: no bake.
ROUTED = Rollout(strategy="canary", weights=(0.1, 0.5), bake_s=0.0)


def test_a_canary_gets_its_share_by_the_route(site: Site, models: Models, monkeypatch: pytest.MonkeyPatch):
    with route_api(site.cluster):
        second = _by_shares(site, models)
        # A Gateway that refuses the route: the canary gets nothing, and what served serves.
        monkeypatch.setattr(routing, "ACCEPTED_WITHIN_S", 3.0)
        with (
            Gateway(site.cluster, accepts=False) as gateway,
            pytest.raises(RolloutError, match="NotAllowedByListeners"),
        ):
            site.deploy(models["good"], replace(ROUTED, weights=(0.2,)), BEHIND)
        assert gateway.weights[-1] == {"tiny": 100}
    decision = site.decision()
    assert (decision.live, decision.candidate, decision.stage) == (second, None, None)
    assert decision.outcome is not None
    assert decision.outcome.result == "rolled back"


def _by_shares(site: Site, models: Models) -> str:
    with Gateway(site.cluster) as gateway:
        first = site.deploy(models["good"], PLAIN, BEHIND)
        second = site.deploy(models["better"], ROUTED, BEHIND)
        route = site.cluster.get("HTTPRoute", "tiny")
        assert gateway.weights == [
            {"tiny": 100},
            {"tiny": 90, "tiny-canary": 10},
            {"tiny": 50, "tiny-canary": 50},
            {"tiny": 100},
        ]
        assert route["spec"]["parentRefs"][0] | {"group": "", "kind": ""} == {
            "group": "",
            "kind": "",
            "name": "public",
            "namespace": "infra",
        }
        assert route["spec"]["hostnames"] == ["tiny.example.org"]
        assert site.decision().live == second.revision != first.revision
        assert site.cluster.get("Service", "tiny-canary") is None
    return second.revision


def test_a_cluster_without_gateways_says_so(site: Site, models: Models):
    with pytest.raises(InputError, match="Gateway API"):
        site.deploy(models["good"], PLAIN, BEHIND)
    assert site.decision().live is None
