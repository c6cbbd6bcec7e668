"""What an apply would change, as the server itself says it."""

from __future__ import annotations

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Change, diff
from airflow_model_deploy.engine.errors import InputError
from tests.engine.deployment.cluster.manifests import config_map, deployment, service

pytestmark = pytest.mark.kubernetes


def test_a_new_object_is_created_and_a_dry_run_creates_nothing(cluster):
    assert diff(cluster, [config_map("a"), deployment("web")]) == [
        Change("create", "ConfigMap", "a"),
        Change("create", "Deployment", "web"),
    ]
    assert cluster.get("ConfigMap", "a") is None
    assert cluster.get("Deployment", "web") is None


def test_what_is_so_already_changes_nothing_whatever_the_server_filled_in(cluster):
    wanted = [service("web", {"app": "web"}), deployment("web"), config_map("a", x="1")]
    for obj in wanted:
        cluster.apply(obj)
    cluster.scale("web", 2)
    assert {change.verb for change in diff(cluster, wanted)} == {"none"}


def test_changes_are_named_by_their_paths(cluster):
    before = deployment("web", container={"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]})
    before["metadata"]["annotations"] = {"model-deploy.io/image": "x"}
    cluster.apply(before)
    cluster.apply(service("web", {"app": "web"}))
    live = cluster.get("Deployment", "web")
    after = deployment("web", image="nginx:2", container={"env": [{"name": "B", "value": "3"}]})
    found = diff(cluster, [after, service("web", {"app": "web", "revision": "b"})])
    (deployed, served), server = found, "spec.template.spec.containers[server]"
    assert (deployed.verb, deployed.kind, deployed.name) == ("change", "Deployment", "web")
    assert deployed.paths[0].startswith("metadata.annotations")
    assert deployed.paths[1:] == (f"{server}.env[A]", f"{server}.env[B].value", f"{server}.image")
    assert served == Change("change", "Service", "web", ("spec.selector.revision",))
    assert live is not None
    assert cluster.get("Deployment", "web")["spec"] == live["spec"]


def test_another_writers_edit_is_a_conflict_that_names_them_and_the_field(cluster, kubectl):
    cluster.apply(deployment("web"))
    kubectl("set", "image", "deployment/web", "server=nginx:1", "--field-manager=kubectl-edit")
    (found,) = diff(cluster, [deployment("web")])
    assert found.verb == "conflict"
    assert found.paths == ('spec.template.spec.containers[name="server"].image',)
    assert "kubectl-edit" in found.note


def test_a_kind_that_the_server_lacks_is_said(cluster):
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "a"}}
    if cluster.serves("HTTPRoute"):
        pytest.skip("this cluster has the Gateway API")
    (found,) = diff(cluster, [route])
    assert found.verb == "unknown"
    assert "no such kind" in found.note


def test_what_the_server_refuses_is_refused(cluster):
    with pytest.raises(InputError, match="port"):
        diff(cluster, [service("web", {}, port=0)])
