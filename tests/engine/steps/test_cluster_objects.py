"""A release for a cluster: its plan says how it is to run, and its objects can be read before anything is changed."""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import replace

import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.deployment.targets.kubernetes import (
    Target,
    live_objects,
    pending_image,
    revision_of_template,
)
from airflow_model_deploy.engine.packaging import Release, ReleasePlan, Rollout, Workload
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.engine.steps.cluster_objects import measured_workload
from tests.flows.small_onnx import evaluated, write_model

KINDS = ("Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount")
SETTINGS = {"replicas": 3, "max_replicas": "6", "tolerations": [{"key": "gpu", "operator": "Exists"}]}


class Evaluated:
    """A servable and its evaluation, which many releases are prepared from."""

    def __init__(self, folder):
        self.store = f"file://{folder}/store"
        self.name = f"cluster-{uuid.uuid4().hex[:8]}"
        write_model(folder / "model.onnx", 1)
        self.built, self.evaluation = evaluated(self.run, self.name, folder / "model.onnx")

    def ask(self, step, spec, **inputs):
        return run_request(
            StepRequest(step, spec, {role: one.artifact for role, one in inputs.items()}, self.store)
        )

    def run(self, step, spec, **inputs):
        result = self.ask(step, spec, **inputs)
        assert result.status == "succeeded", result.error
        return result

    def prepare(self, ask=None, **spec):
        spec = {"target": "kubernetes", "latency_ms": 1000, **spec}
        return (ask or self.run)("prepare", spec, servable=self.built, evaluation=self.evaluation)

    def folder(self, result):
        return Store(self.store).fetch(result.artifact)[0]

    def plan(self, result):
        return ReleasePlan.from_json(json.loads((self.folder(result) / "plan.json").read_bytes()))

    def objects(self, result):
        files = sorted((self.folder(result) / "kubernetes").iterdir())
        return {file.name: json.loads(file.read_bytes()) for file in files}


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    return Evaluated(tmp_path_factory.mktemp("tested"))


def expected(plan, image, namespace=""):
    target = Target(plan.name, namespace, image, plan.resources, plan.workload)
    return {f"{one['kind'].lower()}.json": one for one in live_objects(target)}


def test_the_plan_says_how_it_is_to_run(tested):
    plan = tested.plan(tested.prepare())
    servable = tested.folder(tested.built)
    size = sum(file.stat().st_size for file in servable.rglob("*") if file.name != "manifest.json")
    assert plan.workload == Workload(model_bytes=size, load_s=plan.workload.load_s)
    start = tested.evaluation.measurements["start_s"]
    assert start <= plan.workload.load_s <= max(1.0, 2.5 * start)
    assert plan.rollout == Rollout()
    assert plan.strategy == "blue-green"


def test_the_authors_settings_are_in_the_plan_and_the_objects(tested):
    settings = {**SETTINGS, "load_s": 30}
    result = tested.prepare(kubernetes=settings, rollout={"strategy": "canary", "weights": [0.2]})
    plan = tested.plan(result)
    assert plan.strategy == plan.rollout.strategy == "canary"
    assert plan.rollout.weights == (0.2,)
    assert (plan.workload.max_replicas, plan.workload.load_s) == (6, 30.0)
    objects = tested.objects(result)
    assert objects["horizontalpodautoscaler.json"]["spec"]["maxReplicas"] == 6
    pod = objects["deployment.json"]["spec"]["template"]["spec"]
    assert pod["tolerations"] == SETTINGS["tolerations"]
    assert pod["containers"][0]["startupProbe"]["failureThreshold"] > 60 + 4 * 30


def test_before_there_is_an_image_it_is_pending(tested):
    result = tested.prepare()
    objects = tested.objects(result)
    assert sorted(objects) == [f"{kind.lower()}.json" for kind in KINDS]
    assert objects == expected(tested.plan(result), pending_image(tested.name))
    assert objects["deployment.json"]["spec"]["template"]["spec"]["containers"][0]["image"] == (
        f"{tested.name}@pending"
    )


@pytest.mark.parametrize("target", ["host", "docker"])
def test_elsewhere_there_is_none_of_it(tested, target):
    result = tested.prepare(target=target, kubernetes=SETTINGS)
    plan = tested.plan(result)
    assert plan.workload is plan.rollout is None
    assert not (tested.folder(result) / "kubernetes").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"kubernetes": {"min_replicas": 5, "max_replicas": 4}}, ("min_replicas", "5", "Raise max_replicas")),
        ({"kubernetes": {"replica": 5}}, ("kubernetes.replica",)),
        ({"kubernetes": {"exposure": "Ingress"}}, ("exposure", "Ingress")),
        ({"kubernetes": {"tolerations": ["gpu"]}}, ("tolerations", "gpu")),
        ({"rollout": {"weights": [0.1, 0.9]}}, ("weights", "0.9", "End with 0.5")),
        ({"rollout": {"bake_s": -1}}, ("bake_s", "-1")),
    ],
)
def test_a_bad_setting_is_refused_by_name(tested, spec, words):
    result = tested.prepare(tested.ask, **spec)
    assert result.status == "failed"
    assert result.error["permanent"] is True
    for word in words:
        assert word in result.error["message"]


def test_the_time_to_load_is_coarse(tested):
    servable = tested.folder(tested.built)
    found = [
        measured_workload(None, servable, {"measured": {"start_s": start}}).load_s
        for start in (0.2, 0.21, 1.1, 4, 14, 49, 51, 2000.5)
    ]
    assert found == [1, 1, 2, 5, 20, 50, 100, 5000]
    assert measured_workload(None, servable, {"measured": {}}).load_s is None


@pytest.fixture(scope="module")
def packaged(tested):
    registry = os.environ.get("TESTBED_REGISTRY")
    if not registry:
        pytest.skip("TESTBED_REGISTRY is not set")
    plan = tested.prepare(kubernetes={"replicas": 1})
    spec = {"target": "kubernetes", "base_image": "python:3.11-slim", "registry": f"{registry}/flow-tests"}
    return tested.run("package", spec, servable=tested.built, plan=plan)


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_a_packaged_release_names_its_image_in_its_objects(tested, packaged):
    release = Release.from_json(json.loads((tested.folder(packaged) / "release.json").read_bytes()))
    assert release.image.startswith(f"{os.environ['TESTBED_REGISTRY']}/flow-tests/{tested.name}@sha256:")
    objects = tested.objects(packaged)
    assert objects == expected(release.plan, release.image)
    target = Target(tested.name, "models", release.image, release.plan.resources, release.plan.workload)
    assert objects["deployment.json"]["metadata"]["name"] == f"{tested.name}-{revision_of_template(target)}"
    deployed = live_objects(target)
    assert [one["metadata"].pop("namespace") for one in deployed] == ["models"] * len(objects)
    assert {f"{one['kind'].lower()}.json": one for one in deployed} == objects
    assert revision_of_template(replace(target, image=pending_image(tested.name))) == "pending"


@pytest.mark.docker
@pytest.mark.kubernetes
@pytest.mark.timeout(300)
def test_a_real_pod_of_it_answers_under_its_confinement(tested, packaged):
    from kubernetes import client, config

    api = config.new_client_from_config(os.environ["KUBECONFIG"])
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    namespace = f"objects-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": namespace}})
    try:
        objects = tested.objects(packaged)
        core.create_namespaced_service_account(namespace, objects["serviceaccount.json"])
        apps.create_namespaced_deployment(namespace, objects["deployment.json"])
        pod = ready_pod(core, namespace)
        address = f"{pod.metadata.name}:8080"
        answer = core.connect_get_namespaced_pod_proxy_with_path(
            address, namespace, f"v2/models/{tested.name}"
        )
        assert tested.name in str(answer)
        assert "model_load_seconds" in core.connect_get_namespaced_pod_proxy_with_path(
            address, namespace, "metrics"
        )
        (state,) = pod.status.container_statuses
        assert state.restart_count == 0
    finally:
        core.delete_namespace(namespace)


def ready_pod(core, namespace, seconds=120):
    deadline = time.monotonic() + seconds
    pods = []
    while time.monotonic() < deadline:
        pods = core.list_namespaced_pod(namespace).items
        for pod in pods:
            if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ()):
                return pod
        time.sleep(0.5)
    raise AssertionError([pod.status for pod in pods])
