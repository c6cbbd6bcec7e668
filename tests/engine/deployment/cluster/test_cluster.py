"""The API's verbs, its refusals, and calls that get no answer, on a real API server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    AbsentError,
    Cluster,
    ConflictError,
    Connection,
    ExistsError,
    ExpiredError,
    ForbiddenError,
    LostError,
    StaleError,
)
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from tests.engine.deployment.cluster.faults import Flaky, cuttable
from tests.engine.deployment.cluster.manifests import config_map, deployment, service

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def flaky(namespace: str) -> Flaky:
    return Flaky(Connection(), namespace, patience_s=5.0)


def lost(**more: Any) -> LostError:
    return LostError("a call", found="the connection died", **more)


def limited(cluster: Cluster, kubeconfig: dict[str, Any], token: str) -> Cluster:
    """The same cluster, with a token instead of the test's own credentials."""
    users = [{"name": "limited", "user": {"token": token}}]
    context = {"cluster": kubeconfig["clusters"][0]["name"], "user": "limited"}
    content = kubeconfig | {
        "users": users,
        "contexts": [{"name": "limited", "context": context}],
        "current-context": "limited",
    }
    return Cluster(Connection(kubeconfig=content), cluster.namespace)


def test_objects_are_created_read_changed_listed_and_deleted(cluster):
    made = cluster.create(config_map("a", key="1") | {"metadata": {"name": "a", "labels": {"x": "y"}}})
    cluster.create(config_map("b"))
    cluster.patch("ConfigMap", "a", {"data": {"other": "2"}})

    found = cluster.get("ConfigMap", "a")
    assert found is not None
    assert found["data"] == {"key": "1", "other": "2"}
    assert [
        (o["kind"], o["apiVersion"], o["metadata"]["name"]) for o in cluster.list("ConfigMap", {"x": "y"})
    ] == [("ConfigMap", "v1", "a")]
    with pytest.raises(StaleError):
        cluster.replace(made | {"data": {}})
    assert cluster.replace(found | {"data": {}}).get("data") is None
    assert cluster.delete("ConfigMap", "a")
    assert not cluster.delete("ConfigMap", "a")
    assert cluster.get("ConfigMap", "a") is None


def test_a_second_creation_says_that_it_is_there(cluster):
    cluster.create(config_map("a"))
    with pytest.raises(ExistsError, match='"a" already exists'):
        cluster.create(config_map("a"))


def test_an_identical_apply_writes_nothing_and_a_left_out_field_goes(cluster):
    first = cluster.apply(config_map("a", one="1", two="2"))
    again = cluster.apply(config_map("a", one="1", two="2"))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert cluster.apply(config_map("a", one="1"))["data"] == {"one": "1"}


def test_an_apply_at_another_version_is_refused_and_changes_nothing(cluster):
    first = cluster.apply(service("web", {"revision": "a"}))["metadata"]["resourceVersion"]
    cluster.apply(service("web", {"revision": "b"}), resource_version=first)
    with pytest.raises(StaleError):
        cluster.apply(service("web", {"revision": "c"}), resource_version=first)
    assert cluster.get("Service", "web")["spec"]["selector"] == {"revision": "b"}


def test_an_apply_at_a_version_of_a_service_that_is_gone_is_refused_at_once(cluster):
    began = time.monotonic()
    with pytest.raises(StaleError):
        cluster.apply(service("web", {}), resource_version="1")
    assert time.monotonic() - began < 2


def test_a_conflict_names_the_other_manager_and_the_field(cluster, kubectl):
    cluster.apply(deployment("web"))
    kubectl("set", "image", "deployment/web", "server=nginx:1", "--field-manager=kubectl-edit")
    with pytest.raises(ConflictError, match="kubectl-edit") as caught:
        cluster.apply(deployment("web"))
    assert caught.value.managers == ("kubectl-edit",)
    assert caught.value.fields == ('.spec.template.spec.containers[name="server"].image',)
    forced = cluster.apply(deployment("web"), force=True)
    assert forced["spec"]["template"]["spec"]["containers"][0]["image"].endswith("python:3.11-slim")


def test_replicas_are_set_apart_and_an_apply_leaves_them(cluster):
    cluster.apply(deployment("web"))
    cluster.scale("web", 3)
    cluster.apply(deployment("web", "print(2)"))
    assert cluster.get("Deployment", "web")["spec"]["replicas"] == 3
    cluster.scale("web", 0)
    assert cluster.get("Deployment", "web")["spec"]["replicas"] == 0


def test_what_the_server_does_not_have_is_known(cluster):
    assert cluster.version().startswith("v1.")
    assert cluster.serves("Deployment")
    assert cluster.serves("Pod")
    unserved = [k for k in ("HTTPRoute", "PodDisruptionBudget", "EndpointSlice") if not cluster.serves(k)]
    for kind in unserved:
        assert cluster.get(kind, "a") is None
        assert cluster.list(kind, {}) == []
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "a"}}
    if "HTTPRoute" in unserved:
        with pytest.raises(AbsentError, match="httproutes/a in namespace"):
            cluster.apply(route)


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (service("web", {}, port=0), "spec.ports"),
        (config_map("A_b"), "metadata.name"),
        (config_map("a") | {"data": {"k": {"no": "text"}}}, "data"),
    ],
)
def test_what_the_server_cannot_accept_is_refused_at_once_in_its_words(cluster, obj, words):
    began = time.monotonic()
    with pytest.raises(InputError, match=words):
        cluster.apply(obj)
    assert time.monotonic() - began < 2


def test_a_missing_permission_names_verb_resource_and_namespace(cluster, kubeconfig):
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "limited"}}
    cluster.create(account)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/limited/token"
    token = cluster._send("POST", path, body=body)["status"]["token"]
    with limited(cluster, kubeconfig, token) as little, pytest.raises(ForbiddenError) as caught:
        little.apply(deployment("web"))
    error = caught.value
    assert (error.verb, error.resource, error.namespace) == ("patch", "deployments.apps", cluster.namespace)
    assert "system:serviceaccount" in str(error)
    assert "rbac" in str(error)
    assert token not in str(error)


def test_credentials_that_nobody_has_are_told_apart_and_never_shown(cluster, kubeconfig):
    with limited(cluster, kubeconfig, "secret-word") as nobody, pytest.raises(ForbiddenError) as caught:
        nobody.get("Pod", "a")
    assert caught.value.unknown
    assert "credentials" in str(caught.value)
    assert "secret-word" not in str(caught.value) + repr(nobody.connection)


def test_a_call_is_tried_again_until_it_succeeds(flaky):
    flaky.before = [
        lost(),
        UnavailableError("a call"),
        ForbiddenError("a call", found="roles unknown as yet"),
    ]
    assert flaky.create(config_map("a"))["metadata"]["name"] == "a"
    assert len(flaky.calls) == 4


def test_patience_ends(namespace):
    flaky = Flaky(Connection(), namespace, patience_s=0.5)
    flaky.before = [lost() for _ in range(50)]
    with pytest.raises(LostError, match="the connection died"):
        flaky.get("Pod", "a")
    assert 2 <= len(flaky.calls) < 6


def test_an_apply_whose_answer_was_lost_is_stale_when_tried_again(flaky):
    first = flaky.apply(config_map("a", x="1"))
    flaky.after = [lost()]
    with pytest.raises(StaleError):
        flaky.apply(config_map("a", x="2"), resource_version=first["metadata"]["resourceVersion"])
    assert flaky.get("ConfigMap", "a")["data"] == {"x": "2"}


def test_a_server_that_restarts_costs_time_only(kubeconfig, namespace):
    lines: list[str] = []
    with (
        cuttable(kubeconfig) as (way, through),
        Cluster(Connection(kubeconfig=through), namespace, log=lines.append) as cluster,
    ):
        cluster.create(config_map("a"))
        way.cut()
        threading.Timer(1.0, way.mend).start()
        found = cluster.get("ConfigMap", "a")
    assert found is not None
    assert any("trying again" in line for line in lines)


def test_a_watch_tells_what_happens_and_ends_in_time(cluster):
    _, version = cluster.listing("ConfigMap", {"app": "a"})

    def labelled(x):
        return config_map("a", x=x) | {"metadata": {"name": "a", "labels": {"app": "a"}}}

    cluster.apply(labelled("1"))
    cluster.apply(labelled("2"))
    cluster.create(config_map("other"))
    cluster.delete("ConfigMap", "a")
    began = time.monotonic()
    told = [
        (what, obj["data"]["x"])
        for what, obj in cluster.watch("ConfigMap", {"app": "a"}, version, 2)
        if what != "BOOKMARK"
    ]
    assert told == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]
    assert time.monotonic() - began < 4


def test_a_watch_from_a_forgotten_version_says_so(cluster):
    with pytest.raises(ExpiredError):
        list(cluster.watch("ConfigMap", {}, "1", 1))


@pytest.mark.parametrize(
    "connection",
    [
        Connection(path="/nowhere/config"),
        Connection(kubeconfig={}),
        Connection(context="nobody's"),
        Connection(in_cluster=True),
    ],
)
def test_a_way_that_leads_nowhere_is_said_with_a_remedy(connection):
    with pytest.raises(InputError, match="kubeconfig"):
        Cluster(connection, "default").version()


def test_a_server_with_another_certificate_is_refused_at_once(kubeconfig):
    with cuttable(kubeconfig) as (_, through):
        through["clusters"][0]["cluster"]["tls-server-name"] = "elsewhere.example"
        with pytest.raises(InputError, match="certificate"):
            Cluster(Connection(kubeconfig=through), "default").version()
