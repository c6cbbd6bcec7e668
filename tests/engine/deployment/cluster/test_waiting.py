"""Waiting on real pods: the ones that get ready, and why the others don't."""

from __future__ import annotations

import secrets
import threading

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    Cluster,
    Connection,
    ExpiredError,
    held,
    wait_endpoints,
    wait_gone,
    wait_ready,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import only
from airflow_model_deploy.engine.deployment.targets.kubernetes.revisions import Revisions
from airflow_model_deploy.engine.errors import RolloutError
from tests.engine.deployment.cluster.faults import Flaky, cuttable
from tests.engine.deployment.cluster.manifests import REGISTRY, deployment, service

pytestmark = pytest.mark.kubernetes
# Without a probe a container is ready in the moment before it ends.
LATE = {"exec": {"command": ["true"]}, "initialDelaySeconds": 60}


def failure(
    cluster: Cluster, name: str, *, count: int = 1, deadline_s: float = 60.0
) -> tuple[str, list[str]]:
    lines: list[str] = []
    with pytest.raises(RolloutError) as caught:
        wait_ready(cluster, {"app": name}, count, deadline_s=deadline_s, log=lines.append)
    return str(caught.value), lines


def test_pods_get_ready_lead_a_service_to_them_and_go(namespace):
    cluster = Flaky(Connection(), namespace)
    lines: list[str] = []
    cluster.apply(deployment("web"))
    cluster.scale("web", 2)
    cluster.apply(service("web", {"app": "web"}))
    cluster.calls.clear()
    pods = wait_ready(cluster, {"app": "web"}, 2, deadline_s=60, log=lines.append)
    assert len(cluster.calls) <= 3  # a list, a watch, perhaps another
    assert "0 of 2 pods are ready" in lines

    ips = {pod["status"]["podIP"] for pod in pods}
    assert len(ips) == 2
    assert wait_endpoints(cluster, "web", ips, deadline_s=20) == ips
    with pytest.raises(RolloutError, match=r"10\.0\.0\.1"):
        wait_endpoints(cluster, "web", {"10.0.0.1"}, deadline_s=0.5, exact=False)
    cluster.scale("web", 0)
    wait_endpoints(cluster, "web", set(), deadline_s=20)
    wait_gone(cluster, {"app": "web"}, deadline_s=30, log=lines.append)
    assert cluster.list("Pod", {"app": "web"}) == []


def test_an_image_that_is_not_in_the_registry_ends_it_at_once(cluster):
    image = f"{REGISTRY}/nobody/has-this:1"
    cluster.apply(deployment("web", image=image))
    words, _ = failure(cluster, "web")
    assert "ImagePull" in words
    assert "not found" in words
    assert image in words


def test_an_image_that_is_missing_is_known_when_only_the_back_off_is_left_to_see(namespace):
    """Older clusters say why in an event alone."""

    class Late(Cluster):
        def listing(self, *arguments, **options):
            found, version = super().listing(*arguments, **options)
            return [late(obj) for obj in found], version

        def watch(self, *arguments, **options):
            for what, obj in super().watch(*arguments, **options):
                yield what, late(obj)

    def late(obj):
        for status in (obj.get("status") or {}).get("containerStatuses") or ():
            if status["state"].get("waiting", {}).get("reason") == "ErrImagePull":
                status["state"]["waiting"] = {"reason": "ImagePullBackOff", "message": "Back-off pulling"}
        return obj

    cluster = Late(Connection(), namespace)
    cluster.apply(deployment("web", image=f"{REGISTRY}/nobody/has-this:1"))
    assert "not found" in failure(cluster, "web")[0]


def test_a_name_that_no_image_can_have_ends_it_at_once(cluster):
    cluster.apply(deployment("web", image="NOT A NAME"))
    assert "InvalidImageName" in failure(cluster, "web")[0]


def test_a_server_that_ends_again_and_again_is_given_up_with_its_last_words(cluster):
    script = "import sys; print('no such weights'); sys.exit(3)"
    cluster.apply(deployment("web", script, container={"readinessProbe": LATE}))
    words, lines = failure(cluster, "web")
    assert "code 3" in words
    assert "no such weights" in words
    assert any("exited once" in line or "exited 2 times" in line for line in lines)


def test_a_server_that_needs_more_memory_than_it_may_have_is_given_up(cluster):
    cluster.apply(
        deployment("web", "x = bytearray(1 << 30)", memory="32Mi", container={"readinessProbe": LATE})
    )
    assert "OOMKilled" in failure(cluster, "web")[0]


def test_a_config_map_that_is_missing_ends_it_at_once(cluster):
    env = [{"configMapRef": {"name": "nobody-has-this"}}]
    cluster.apply(deployment("web", container={"envFrom": env}))
    words, _ = failure(cluster, "web")
    assert "CreateContainerConfigError" in words
    assert "nobody-has-this" in words


def test_a_quota_ends_it_in_the_words_of_the_cluster(cluster, kubectl):
    kubectl("create", "quota", "little", "--hard=pods=1")
    cluster.apply(deployment("web"))
    cluster.scale("web", 2)
    words, _ = failure(cluster, "web", count=2)
    assert "exceeded quota: little" in words


def test_no_room_is_waited_for_and_told_in_the_schedulers_words(cluster, kubectl):
    label = f"model-deploy-test-{secrets.token_hex(4)}"
    node = kubectl("get", "nodes", "--output=jsonpath={.items[0].metadata.name}")
    lines: list[str] = []
    cluster.apply(deployment("web", pod={"nodeSelector": {label: "yes"}}))

    words, _ = failure(cluster, "web", deadline_s=2)
    assert "nodes are available" in words
    timer = threading.Timer(1.0, kubectl, ("label", "node", node, f"{label}=yes"))
    timer.start()
    try:
        pods = wait_ready(cluster, {"app": "web"}, 1, deadline_s=60, log=lines.append)
    finally:
        timer.join()
        kubectl("label", "node", node, f"{label}-")
    assert len(pods) == 1
    assert len([line for line in lines if "Unschedulable" in line]) == 1


def test_a_server_that_does_not_answer_in_time_is_described(cluster):
    probe = {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 1}
    script = "print('loading', flush=True); import time; time.sleep(600)"
    cluster.apply(deployment("web", script, container={"readinessProbe": probe}))
    words, _ = failure(cluster, "web", deadline_s=6)
    assert "0 of 1" in words
    assert "Readiness probe failed" in words
    assert "loading" in words


def test_waiting_survives_an_api_server_that_restarts(kubeconfig, namespace):
    lines: list[str] = []
    slow = {"exec": {"command": ["true"]}, "initialDelaySeconds": 3}
    with (
        cuttable(kubeconfig) as (way, through),
        Cluster(Connection(kubeconfig=through), namespace, log=lines.append) as cluster,
    ):
        cluster.apply(deployment("web", container={"readinessProbe": slow}))
        threading.Timer(1.0, way.cut).start()
        threading.Timer(6.0, way.mend).start()  # longer than a watch that was cut off waits
        assert len(wait_ready(cluster, {"app": "web"}, 1, deadline_s=60, log=lines.append)) == 1
    assert any("trying again" in line for line in lines)


def test_waiting_goes_on_where_the_server_has_forgotten_the_version(namespace):
    class Forgetful(Flaky):
        def watch(self, *arguments, **options):
            if not self.before:
                self.before.append(ExpiredError("too old"))
            return super().watch(*arguments, **options)

    cluster = Forgetful(Connection(), namespace)
    cluster.create(deployment("web"))
    assert len(wait_ready(cluster, {"app": "web"}, 1, deadline_s=60, log=print)) == 1


def test_nothing_is_started_while_pods_that_are_to_go_could_be_taken_for_it(cluster):
    """A scale to 0 and up again: until the cluster gets to the first, the old pods are ready, and doomed."""
    labels = only("web", "abc")
    cluster.apply(deployment("web-abc"))
    cluster.scale("web-abc", 0)
    wait_gone(cluster, {"app": "web-abc"}, deadline_s=30, log=print)
    template = deployment("doomed")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}
    cluster.create(pod | {"metadata": {"name": "doomed", "labels": labels}})
    seen = []

    def get_to_it():
        seen.append(cluster.get("Deployment", "web-abc")["spec"]["replicas"])
        cluster.delete("Pod", "doomed")

    late = threading.Timer(1.5, get_to_it)
    late.start()
    lines: list[str] = []
    with held(cluster, "web") as lease:
        revisions = Revisions(cluster, "web", lease, lines.append)
        revisions.scale("abc", 1)
        left = cluster.get("Pod", "doomed")
        late.join()
        assert left is None or "deletionTimestamp" in left["metadata"]
        assert seen == [0]
        assert revisions.replicas("abc") == 1
    assert lines[0] == "waiting for 1 pods to go: doomed"


def test_a_pod_that_has_ended_is_not_waited_for(cluster):
    """As one that was evicted, which is kept for long."""
    labels = only("web", "abc")
    spec = deployment("ended", "exit(1)")["spec"]["template"]["spec"] | {"restartPolicy": "Never"}
    cluster.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ended", "labels": labels}, "spec": spec}
    )
    wait_gone(cluster, labels, deadline_s=30, log=print)
    assert cluster.get("Pod", "ended")["status"]["phase"] == "Failed"
