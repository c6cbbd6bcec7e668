"""Steps in pods of a real cluster, on a real S3 store: they run, they fail with reasons, and they leave nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

import airflow_model_deploy as md
from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, Connection
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.runners import KubernetesRunner, Pod, kubernetes
from airflow_model_deploy.runners.pod import TASK
from tests.engine.deployment.cluster.namespaces import fresh_namespace
from tests.flows.small_onnx import evaluated, write_model
from tests.s3 import KEY, SECRET, serving

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]
REGISTRY = os.environ.get("TESTBED_REGISTRY", "localhost:5000")


@pytest.fixture(scope="module")
def namespace():
    with fresh_namespace() as name:
        yield name


@pytest.fixture(scope="module")
def cluster(namespace):
    with Cluster(Connection(), namespace) as found:
        yield found


@pytest.fixture(scope="module")
def s3():
    with serving(_address_for_pods()) as server:
        yield server


@pytest.fixture(scope="module")
def image():
    """The driver's image with what reads the store: enough for a step that needs no torch."""
    from airflow_model_deploy.engine.packaging.images import OciBuilder
    from airflow_model_deploy.engine.packaging.images.contents import driver_spec, package_cache

    spec = driver_spec(f"{REGISTRY}/python:3.11-slim", package_cache(), also=["s3fs"])
    return OciBuilder().build(spec, f"{REGISTRY}/runner-tests/driver", log=lambda line: None).reference


@pytest.fixture(scope="module")
def tested(s3, tmp_path_factory):
    """References of a servable and its evaluation, in the store."""
    source = tmp_path_factory.mktemp("model") / "model.onnx"
    write_model(source, seed=0)

    def run(step, spec, **inputs):
        artifacts = {role: result.artifact for role, result in inputs.items()}
        result = run_request(StepRequest(step, spec, artifacts, s3.url), options=s3.options)
        assert result.status == "succeeded", result.error
        return result

    built, evaluation = evaluated(run, "toy", source)
    return {"servable": built.artifact.to_json(), "evaluation": evaluation.artifact.to_json()}


@pytest.fixture
def context():
    pushed = {}
    ti = SimpleNamespace(
        dag_id="dag",
        run_id="run 1",
        task_id="prepare",
        map_index=-1,
        try_number=1,
        start_date=datetime.now(UTC),
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    return {"ti": ti, "run_id": "run 1", "dag": None, "outlet_events": {}, "params": {}, "pushed": pushed}


@pytest.fixture
def created(monkeypatch):
    """What was created in the cluster, as it was sent."""
    seen, create = [], kubernetes._created
    monkeypatch.setattr(
        kubernetes, "_created", lambda cluster, obj: (seen.append(obj), create(cluster, obj))[1]
    )
    return seen


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    yield
    if "cluster" not in request.fixturenames:
        return
    cluster = request.getfixturevalue("cluster")
    assert gone(cluster, "Secret")
    assert gone(cluster, "Pod")


@pytest.fixture
def runner_of(cluster, image, namespace, context):
    def make(**fields):
        described = Pod(**{"image": image, "namespace": namespace, **fields})
        task = SimpleNamespace(task_id="prepare", execution_timeout=None)
        return KubernetesRunner(
            described,
            lambda: Cluster(Connection(), namespace),
            conn_id="kubernetes_default",
            task=task,
            context=context,
        )

    return make


def ours(cluster, kind):
    metas = ((one, one["metadata"]) for one in cluster.list(kind, {}))
    # A kubelet takes its time with a pod that never ran.
    return [one for one, meta in metas if TASK in meta.get("labels", {}) and "deletionTimestamp" not in meta]


def gone(cluster, kind, seconds=20):
    deadline = time.monotonic() + seconds
    while (left := ours(cluster, kind)) and time.monotonic() < deadline:
        time.sleep(0.3)
    return not left


def operator(image, namespace, s3, tested, monkeypatch, **pod):
    monkeypatch.setenv("AIRFLOW_CONN_MODELS_STORE", s3.connection)
    return md.PrepareReleaseOperator(
        task_id="prepare",
        **tested,
        target="docker",
        store=s3.url,
        store_conn_id="models_store",
        pod=md.PodConfig(image=image, namespace=namespace, cpus=0.1, memory_bytes=512 << 20, **pod),
    )


def request_of(s3, step="export", **inputs):
    return StepRequest(step, {}, inputs, s3.url, result=f"runs/{time.monotonic_ns()}.json")


def test_a_step_runs_in_a_pod_and_its_credentials_are_nowhere_but_in_a_secret(
    image, namespace, cluster, s3, tested, context, created, monkeypatch, capfd, tmp_path
):
    task = operator(image, namespace, s3, tested, monkeypatch)
    result = task.execute(context)
    assert result["status"] == "succeeded"
    store = Store(s3.url, s3.options)
    content, _ = store.fetch(store.reference(result["artifact"]["digest"]), tmp_path)
    assert json.loads((content / "plan.json").read_bytes())["name"] == "toy"
    pod, secret = created
    assert (pod["kind"], secret["kind"]) == ("Pod", "Secret")
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Pod", pod["metadata"]["name"])
    assert secret["data"]
    said = "".join(capfd.readouterr())
    assert f"pod {pod['metadata']['name']} in namespace {namespace} runs step prepare" in said
    everywhere = json.dumps([pod, result, context["pushed"]]) + said + repr(task.__dict__)
    assert SECRET not in everywhere
    assert KEY not in everywhere
    spec = pod["spec"]["containers"][0]
    assert spec["resources"]["limits"] == {"memory": str(512 << 20)}
    assert spec["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_a_deferred_task_goes_on_where_its_pod_ended(
    image, namespace, cluster, s3, tested, context, monkeypatch
):
    with pytest.raises(TaskDeferred) as deferred:
        operator(image, namespace, s3, tested, monkeypatch, deferrable=True).execute(context)
    assert deferred.value.method_name == "resume_in_pod"
    assert SECRET not in json.dumps(deferred.value.kwargs) + repr(deferred.value.trigger.serialize())
    assert len(ours(cluster, "Pod")) == len(ours(cluster, "Secret")) == 1  # they live on
    event = asyncio.run(_first_event(deferred.value.trigger))
    assert event["status"] == "success", event
    # Another process: the operator as Airflow makes it again.
    again = operator(image, namespace, s3, tested, monkeypatch, deferrable=True)
    result = again.resume_in_pod(context, event=event, **deferred.value.kwargs)
    assert (result["step"], result["status"]) == ("prepare", "succeeded")


def test_a_deferral_that_failed_leaves_no_pod(image, namespace, cluster, s3, tested, context, monkeypatch):
    from airflow.sdk.exceptions import TaskDeferralError

    with pytest.raises(TaskDeferred):
        operator(image, namespace, s3, tested, monkeypatch, deferrable=True).execute(context)
    again = operator(image, namespace, s3, tested, monkeypatch, deferrable=True)
    with pytest.raises(TaskDeferralError):
        again.resume_execution("__fail__", {"error": "the trigger died"}, context)
    assert gone(cluster, "Pod")


def test_a_cancel_while_the_pod_is_made_ends_it(runner_of, s3, cluster, monkeypatch):
    runner, create = runner_of(), kubernetes._created

    def created(cluster, obj):
        made = create(cluster, obj)
        runner.cancel()  # as Airflow's signal does, in the middle of it
        return made

    monkeypatch.setattr(kubernetes, "_created", created)
    with pytest.raises(InterruptedError):
        runner.start(request_of(s3), store_options=s3.options)


def test_what_a_step_lacks_is_told_as_its_failure_and_its_log_is_the_tasks(runner_of, s3, capfd):
    runner = runner_of()
    runner.start(request_of(s3), store_options=s3.options)
    result = runner.wait()
    assert (result.status, result.error["permanent"]) == ("failed", True)
    assert "was given other inputs" in result.error["message"]
    assert "ERROR step 'export' was given other inputs" in "".join(capfd.readouterr())


def test_too_little_memory_is_told_as_such(runner_of, s3):
    runner = runner_of(memory_bytes=16 << 20)
    runner.start(request_of(s3), store_options=s3.options)
    error = runner.wait().error
    assert "ran out of memory (limit: 16777216 bytes)" in error["message"]
    assert error["permanent"] is False


def test_an_image_that_is_not_there_is_told_in_the_clusters_words(runner_of, s3):
    runner = runner_of(image=f"{REGISTRY}/no/such/worker:1")
    runner.start(request_of(s3), store_options=s3.options)
    error = runner.wait().error
    assert "no/such/worker:1" in error["message"]
    assert "not found" in error["message"]
    assert error["permanent"] is True


def test_cancelling_ends_a_running_pod_and_its_secret(runner_of, s3, cluster, monkeypatch):
    described = kubernetes.pod_object

    def sleeping(*args, **kwargs):
        pod = described(*args, **kwargs)
        pod["spec"]["containers"][0]["command"] = ["python3", "-c", "import time; time.sleep(600)"]
        return pod

    monkeypatch.setattr(kubernetes, "pod_object", sleeping)
    runner = runner_of()
    runner.start(request_of(s3), store_options=s3.options)
    killer = threading.Thread(target=_cancel_when_it_runs, args=(runner, cluster))
    killer.start()
    result = runner.wait()
    killer.join()
    assert result.error["message"].startswith("the step was cancelled")


def test_the_pod_of_an_earlier_attempt_is_replaced(runner_of, s3, cluster):
    first = runner_of(node_selector={"no-such": "node"})
    first.start(request_of(s3), store_options=s3.options)  # its task was killed
    second = runner_of()
    second.start(request_of(s3), store_options=s3.options)
    try:
        (left,) = ours(cluster, "Pod")
        assert left["metadata"]["name"] == second._name
    finally:
        second.cancel()


def test_a_cluster_that_refuses_leaves_nothing_and_is_told(runner_of, s3):
    runner = runner_of(namespace="not-there-at-all")
    runner._connect = lambda: Cluster(Connection(), "not-there-at-all")
    with pytest.raises(InputError, match="not-there-at-all"):
        runner.start(request_of(s3), store_options=s3.options)


def test_a_failure_reaches_airflow_as_one(image, namespace, cluster, s3, tested, context, monkeypatch):
    wrong = {"servable": tested["evaluation"], "evaluation": tested["evaluation"]}
    task = operator(image, namespace, s3, wrong, monkeypatch)
    with pytest.raises((AirflowException, AirflowFailException), match="step prepare failed"):
        task.execute(context)


def _cancel_when_it_runs(runner, cluster):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        phases = [pod["status"].get("phase") for pod in ours(cluster, "Pod")]
        if phases == ["Running"]:
            break
        time.sleep(0.3)
    runner.cancel()


async def _first_event(trigger):
    async for event in trigger.run():
        return event.payload
    raise AssertionError("no event")


def _address_for_pods():
    """An address of this host that pods reach: the node's own, where host and node are one."""
    from kubernetes import client, config

    config.load_kube_config()
    for node in client.CoreV1Api().list_node().items:
        for address in node.status.addresses:
            with socket.socket() as probe:
                try:
                    probe.bind((address.address, 0))
                except OSError:
                    continue
                return address.address
    pytest.skip("no node of the cluster is this host: an S3 server here isn't reached from pods")
