"""The settings of a service in a cluster: what survives JSON, and what is refused with a word of what to do."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import ReleasePlan, Rollout, Workload
from tests.engine.packaging.test_release_plan import PLAN

WORKLOAD = Workload(
    replicas=3,
    exposure="LoadBalancer",
    node_port=32767,
    service_annotations={"a": "b"},
    gpus=1,
    node_selector={"pool": "a"},
    tolerations=({"key": "a", "operator": "Exists"},),
    affinity={"nodeAffinity": {}},
    image_pull_secrets=("registry",),
    min_replicas=3,
    max_replicas=3,
    ingress_from=({"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}),
    cpu_limit=True,
    model_bytes=10,
    load_s=0.5,
)
ROLLOUT = Rollout(
    strategy="canary",
    weights=(0.01, 0.2, 0.5),
    bake_s=0,
    metrics="prometheus",
    prometheus_url="https://prometheus.example:9090/base",
    ready_timeout_s=5.0,
)


@pytest.mark.parametrize("value", [Workload(), WORKLOAD, Rollout(), ROLLOUT])
def test_settings_survive_json(value):
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


def test_a_plan_carries_them_and_does_not_need_them():
    plan = replace(PLAN, target="kubernetes", workload=WORKLOAD, rollout=ROLLOUT)
    assert ReleasePlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    older = {k: v for k, v in PLAN.to_json().items() if k not in ("workload", "rollout")}
    assert ReleasePlan.from_json(older) == PLAN
    assert PLAN.workload is PLAN.rollout is None


def test_a_gpu_may_be_scaled_by_its_cpu():
    assert Workload(gpus=1, max_replicas=4).max_replicas == 4


def test_a_node_port_needs_no_number():
    assert Workload(exposure="NodePort").node_port is None


WRONG = [
    ({"replicas": 0}, "replicas", "0"),
    ({"replicas": True}, "replicas", "True"),
    ({"replicas": "two"}, "replicas", "two"),
    ({"min_replicas": 5, "max_replicas": 4, "replicas": 4}, "min_replicas", "5"),
    ({"replicas": 5, "max_replicas": 4}, "min_replicas", "5"),
    ({"replicas": 5, "min_replicas": 1, "max_replicas": 4}, "replicas", "5"),
    ({"min_replicas": 1}, "min_replicas", "1"),
    ({"max_replicas": 0}, "max_replicas", "0"),
    ({"cpu_request": 0}, "cpu_request", "0"),
    ({"cpu_target_percent": 0, "max_replicas": 4}, "cpu_target_percent", "0"),
    ({"exposure": "Ingress"}, "exposure", "Ingress"),
    ({"port": 65536}, "port", "65536"),
    ({"exposure": "NodePort", "node_port": 29999}, "node_port", "29999"),
    ({"exposure": "NodePort", "node_port": 32768}, "node_port", "32768"),
    ({"node_port": 30000}, "node_port", "30000"),
    ({"service_annotations": {"a": True}}, "service_annotations", "True"),
    ({"node_selector": ["pool"]}, "node_selector", "pool"),
    ({"tolerations": ("gpu",)}, "tolerations", "gpu"),
    ({"tolerations": ({"toleration_seconds": 5},)}, "tolerations", "toleration_seconds"),
    ({"tolerations": {"key": "gpu"}}, "tolerations", "gpu"),
    ({"affinity": {"node_affinity": {}}}, "affinity", "node_affinity"),
    ({"ingress_from": ("10.0.0.0/8",)}, "ingress_from", "10.0.0.0/8"),
    ({"topology_key": ""}, "topology_key", ""),
    ({"priority_class": 3}, "priority_class", "3"),
    ({"gpus": 0.5}, "gpus", "0.5"),
    ({"gpu_resource": "gpu"}, "gpu_resource", "gpu"),
    ({"image_pull_secrets": "registry"}, "image_pull_secrets", "registry"),
    ({"cpu_limit": "yes"}, "cpu_limit", "yes"),
    ({"drain_s": 0}, "drain_s", "0"),
    ({"drain_s": float("nan")}, "drain_s", "nan"),
    ({"model_bytes": -1}, "model_bytes", "-1"),
    ({"load_s": float("inf")}, "load_s", "inf"),
]
WRONG_ROLLOUTS = [
    ({"strategy": "big-bang"}, "strategy", "big-bang"),
    ({"weights": (0.1, 0.6)}, "weights", "0.6"),
    ({"weights": (0.5, 0.1)}, "weights", "0.5, 0.1"),
    ({"weights": (0.1, 0.1)}, "weights", "0.1, 0.1"),
    ({"weights": (0, 0.1)}, "weights", "0, 0.1"),
    ({"weights": ()}, "weights", "()"),
    ({"weights": ("10%",)}, "weights", "10%"),
    ({"bake_s": -1}, "bake_s", "-1"),
    ({"hold_s": -0.5}, "hold_s", "-0.5"),
    ({"interval_s": 0}, "interval_s", "0"),
    ({"alpha": 0}, "alpha", "0"),
    ({"alpha": 0.6}, "alpha", "0.6"),
    ({"metrics": "statsd"}, "metrics", "statsd"),
    ({"metrics": "prometheus"}, "prometheus_url", ""),
    ({"metrics": "prometheus", "prometheus_url": "prometheus:9090"}, "prometheus_url", "prometheus:9090"),
    ({"max_surge": 0}, "max_surge", "0"),
    ({"max_unavailable": "25%"}, "max_unavailable", "25%"),
    ({"ready_timeout_s": 0}, "ready_timeout_s", "0"),
]


@pytest.mark.parametrize(
    ("kind", "settings", "field", "found"),
    [(Workload, *case) for case in WRONG] + [(Rollout, *case) for case in WRONG_ROLLOUTS],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_what_to_do(kind, settings, field, found):
    with pytest.raises(InputError) as caught:
        kind(**settings)
    assert field in caught.value.thing
    assert found in str(caught.value.found)
    assert caught.value.wanted
    assert caught.value.remedy
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    with pytest.raises(InputError):
        kind.from_json(listed)


@pytest.mark.parametrize(
    "url", ["https://user:secret@prometheus.example", "user:secret@example", "https://example/?token=secret"]
)
def test_credentials_in_an_address_are_refused_and_not_repeated(url):
    with pytest.raises(InputError) as caught:
        Rollout(metrics="prometheus", prometheus_url=url)
    assert "secret" not in str(caught.value)
    assert "user, password" in str(caught.value)


@pytest.mark.parametrize("kind", [Workload, Rollout])
def test_a_misspelt_setting_is_named(kind):
    with pytest.raises(InputError, match="replicsa"):
        kind.from_json({"replicsa": 3})


@pytest.mark.parametrize("kind", [Workload, Rollout])
def test_every_setting_is_explained(kind):
    for one in fields(kind):
        assert f"    {one.name}: " in kind.__doc__
