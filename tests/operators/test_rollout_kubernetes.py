"""A rollout's task in a real cluster: what it makes of the driver's end, deferred or not, killed or lost.

The driver is a stand-in, a script in a real pod; what it would have written on the Service, the test writes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

import airflow_model_deploy as md
from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision, Outcome, decision_on
from airflow_model_deploy.operators import driver_spec
from airflow_model_deploy.operators.verdict import Driven
from tests.conftest import REPOSITORY
from tests.engine.deployment.cluster.manifests import PYTHON, service
from tests.engine.deployment.cluster.namespaces import fresh_namespace, kubectl

pytestmark = pytest.mark.kubernetes
ATTEMPT = "dag/run 1/deploy/-1/1"
RELEASE = {"artifact": {"uri": "file:///store/artifacts/sha256-" + "b" * 64, "digest": "sha256:" + "b" * 64}}
SLEEP = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); time.sleep(300)"
RESULTS = ("promoted", "unchanged", "rolled back", "held", "interrupted")


@pytest.fixture(scope="module")
def namespace():
    with fresh_namespace() as name:
        yield name


@pytest.fixture
def cluster(namespace):
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster, Connection

    with Cluster(Connection(), namespace) as found:
        yield found
        found.delete("Service", "digits")
        for pod in found.list("Pod", {}):
            found.delete("Pod", pod["metadata"]["name"])


@pytest.fixture
def context():
    pushed = {}
    ti = SimpleNamespace(
        dag_id="dag",
        run_id="run 1",
        task_id="deploy",
        map_index=-1,
        try_number=1,
        start_date=None,
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    return {"ti": ti, "run_id": "run 1", "dag": SimpleNamespace(), "outlet_events": {}, "pushed": pushed}


@pytest.fixture
def delivered(monkeypatch):
    from airflow_model_deploy.engine.steps import delivery

    calls = []

    def deliver(*arguments):
        calls.append(arguments)
        return {"name": "digits", "revision": "b" * 12, "release": "digits-" + "b" * 12}

    monkeypatch.setattr(delivery, "deliver_release", deliver)
    return calls


def rollout(namespace, script="", **arguments):
    return md.RolloutOperator(
        task_id="deploy",
        release=RELEASE,
        target="kubernetes",
        cmds=["python3", "-c", script or "print('moved')"],
        image=PYTHON,
        poll_interval=0.2,
        startup_check_interval_seconds=1,
        base_container_status_polling_interval=0.2,
        kubernetes=md.KubernetesConfig(namespace=namespace, service_account="default"),
        **arguments,
    )


def outcome(result, attempt=ATTEMPT, **changes):
    made = Outcome(attempt, "deploy", "b" * 12, result, f"it was {result}", "2026-11-22T12:00:00+00:00")
    return replace(made, **changes)


def write(cluster, **fields):
    """Write a decision on the Service, as a driver does."""
    decision = Decision(**fields)
    wanted = service("digits", {"model-deploy.io/service": "digits"})
    wanted["metadata"]["annotations"] = decision.annotation()
    cluster.apply(wanted)


def ended(cluster, result, **changes):
    write(cluster, live="b" * 12, previous="a" * 12, attempt=ATTEMPT, outcome=outcome(result, **changes))


def test_the_result_is_what_the_cluster_says_though_the_pod_failed(cluster, namespace, context, delivered):
    ended(cluster, "promoted", details={"golden": {"total": 16, "matched": 16}, "summary": "16 of 16"})
    task = rollout(namespace, "raise SystemExit(1)")
    result = task.execute(context)
    assert result["status"] == "succeeded"
    assert result["artifact"] == RELEASE["artifact"]
    details = result["details"]
    assert (details["revision"], details["previous"], details["changed"]) == ("b" * 12, "a" * 12, True)
    assert (details["url"], details["golden"]["matched"]) == (f"http://digits.{namespace}.svc:80", 16)
    assert details["outcome"]["result"] == "promoted"
    assert task.do_xcom_push is True
    assert delivered[0][3:] == ({}, namespace)
    assert json.dumps(result)
    assert cluster.list("Pod", {"model-deploy.io/drives": "digits"}) == [] or all(
        pod["metadata"].get("deletionTimestamp") for pod in cluster.list("Pod", {})
    )


@pytest.mark.parametrize("result", ["rolled back", "held"])
def test_a_release_that_was_sent_back_fails_for_good_though_the_pod_succeeded(
    cluster, namespace, context, delivered, result
):
    ended(cluster, result)
    with pytest.raises(AirflowFailException, match=f"deploy of digits: {result}: it was {result}"):
        rollout(namespace).execute(context)


@pytest.mark.parametrize(
    ("code", "kind"), [(75, AirflowException), (3, AirflowFailException), (0, AirflowException)]
)
def test_without_a_trace_the_pods_own_words_count(cluster, namespace, context, delivered, code, kind):
    script = f"import sys; print('ERROR the release is unreadable', file=sys.stderr); sys.exit({code})"
    with pytest.raises(AirflowException) as caught:
        rollout(namespace, script).execute(context)
    assert type(caught.value) is kind
    assert "left no trace" in str(caught.value)
    assert "the release is unreadable" in str(caught.value) or code == 0
    assert "remote_pod" not in str(caught.value)


def test_an_end_of_another_call_is_not_taken_for_this_ones(cluster, namespace, context, delivered):
    ended(cluster, "promoted", attempt="dag/an earlier run/deploy/-1/1")
    with pytest.raises(AirflowException, match="no trace"):
        rollout(namespace, "raise SystemExit(75)").execute(context)


def deferred(task, context):
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    path, fields = caught.value.trigger.serialize()
    assert path.endswith("DriverPodTrigger")
    assert caught.value.method_name == "trigger_reentry"
    return caught.value.trigger, dict(caught.value.kwargs), fields


def event_of(trigger):
    async def first():
        async for event in trigger.run():
            return event.payload
        raise AssertionError("no event")

    return asyncio.run(first())


def test_a_deferred_task_comes_back_with_the_clusters_verdict(cluster, namespace, context, delivered):
    trigger, kwargs, fields = deferred(
        rollout(namespace, "import time; time.sleep(2)", deferrable=True), context
    )
    assert Driven.from_json(kwargs["driven"]).attempt == ATTEMPT
    assert (
        "xcom" not in json.dumps(cluster.list("Pod", {"model-deploy.io/drives": "digits"})[0]["spec"]).lower()
    )
    event = event_of(type(trigger)(**fields))
    assert event["status"] == "success"
    ended(cluster, "promoted")
    resumed = rollout(namespace, deferrable=True)
    result = resumed.resume_execution("trigger_reentry", {**kwargs, "event": event}, context)
    assert result["details"]["revision"] == "b" * 12


@pytest.mark.parametrize("status", ["success", "failed", "timeout", "error"])
def test_a_pod_that_is_gone_at_the_re_entry_changes_nothing(cluster, namespace, context, delivered, status):
    _, kwargs, fields = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    cluster._send(
        "DELETE",
        f"/api/v1/namespaces/{namespace}/pods/{fields['pod_name']}",
        query={"gracePeriodSeconds": "0"},
    )
    event = {"status": status, "name": fields["pod_name"], "namespace": namespace, "message": "as it is"}
    ended(cluster, "promoted")
    assert rollout(namespace).trigger_reentry(context, event, **kwargs)["details"]["changed"] is True
    ended(cluster, "rolled back")
    with pytest.raises(AirflowFailException, match="rolled back"):
        rollout(namespace).trigger_reentry(context, event, **kwargs)


def test_a_deferred_task_that_is_out_of_time_ends_its_driver_at_once(cluster, namespace, context, delivered):
    _, kwargs, fields = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    wait_until_running(cluster, fields["pod_name"])
    ended(cluster, "interrupted")
    event = {"status": "timeout", "name": fields["pod_name"], "namespace": namespace, "message": "too late"}
    began = time.monotonic()
    with pytest.raises(AirflowException, match=r"interrupted.*too late"):
        rollout(namespace).trigger_reentry(context, event, **kwargs)
    assert time.monotonic() - began < 20  # the driver would have gone on for minutes
    pod = cluster.get("Pod", fields["pod_name"])
    assert pod is None or pod["metadata"]["deletionTimestamp"]


def test_a_pod_that_ended_before_the_deferral_loses_no_result(
    cluster, namespace, context, delivered, monkeypatch
):
    ended(cluster, "promoted")
    task = rollout(namespace, deferrable=True)
    create = task.get_or_create_pod

    def create_and_wait(pod_request_obj, context):
        pod = create(pod_request_obj, context)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = task.hook.get_pod(pod.metadata.name, namespace)
            if found.status.phase == "Succeeded":
                return found
            time.sleep(0.3)
        raise AssertionError("the pod did not end")

    monkeypatch.setattr(task, "get_or_create_pod", create_and_wait)
    assert task.execute(context)["details"]["outcome"]["result"] == "promoted"


def test_a_deferral_that_failed_ends_the_driver_and_still_reads_the_verdict(
    cluster, namespace, context, delivered
):
    _, _, fields = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    ended(cluster, "promoted")
    lost = rollout(namespace, deferrable=True)
    result = lost.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert result["details"]["outcome"]["result"] == "promoted"
    pod = cluster.get("Pod", fields["pod_name"])
    assert pod is None or pod["metadata"]["deletionGracePeriodSeconds"] == driver_spec.GRACE_S


def test_a_deferral_that_failed_without_a_pod_still_reads_the_verdict(cluster, namespace, context):
    ended(cluster, "promoted")
    lost = rollout(namespace, deferrable=True)
    lost.release = {**RELEASE, "name": "digits"}
    result = lost.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert result["details"]["outcome"]["result"] == "promoted"


def test_a_second_try_follows_the_driver_that_the_first_has_left(cluster, namespace, context, delivered):
    _, _, fields = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    context["ti"].try_number = 2
    _, kwargs, again = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    assert again["pod_name"] == fields["pod_name"]
    assert Driven.from_json(kwargs["driven"]).attempt == ATTEMPT


def test_a_driver_that_is_being_ended_is_not_followed(cluster, namespace, context, delivered):
    stays = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    first = rollout(namespace, stays, deferrable=True, termination_grace_period=10)
    _, _, fields = deferred(first, context)
    wait_until_running(cluster, fields["pod_name"])
    cluster.delete("Pod", fields["pod_name"])
    context["ti"].try_number = 2
    _, kwargs, again = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    assert again["pod_name"] != fields["pod_name"]
    assert Driven.from_json(kwargs["driven"]).attempt == ATTEMPT[:-1] + "2"


def wait_until_running(cluster, name):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = name and cluster.get("Pod", name)
        if found and found["status"].get("phase") == "Running":
            return
        time.sleep(0.3)
    raise AssertionError(f"pod {name} does not run")


def test_a_driver_with_another_release_is_ended_not_followed(
    cluster, namespace, context, delivered, monkeypatch
):
    from airflow_model_deploy.engine.steps import delivery

    _, _, fields = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    newer = {"name": "digits", "revision": "c" * 12, "release": "digits-" + "c" * 12}
    monkeypatch.setattr(delivery, "deliver_release", lambda *_: newer)
    stored = {"pod_identifier": {"name": fields["pod_name"], "namespace": namespace}}
    context["task_state_store"] = SimpleNamespace(get=stored.get, set=stored.__setitem__)
    context["ti"].try_number = 2
    _, kwargs, again = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    assert again["pod_name"] != fields["pod_name"]
    assert Driven.from_json(kwargs["driven"]).revision == "c" * 12
    assert cluster.get("Pod", fields["pod_name"])["metadata"]["deletionTimestamp"]


def test_a_kill_ends_the_driver_with_time_to_give_the_traffic_back(cluster, namespace, context, delivered):
    task = rollout(namespace, SLEEP)
    failed = []

    def run():
        try:
            task.execute(context)
        except AirflowException as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while task.pod is None and thread.is_alive():
            time.sleep(0.1)
        wait_until_running(cluster, task.pod.metadata.name)
        began = time.monotonic()
        task.on_kill()
        assert time.monotonic() - began < 5  # Airflow's own patience
        pod = cluster.get("Pod", task.pod.metadata.name)
        assert pod is None or pod["metadata"]["deletionGracePeriodSeconds"] == 60
    finally:
        thread.join(90)
    assert failed
    assert "the driver was ended" in failed[0]


def test_what_a_dead_driver_has_left_half_way_is_given_back(cluster, namespace, context, delivered):
    half_way(cluster)
    with pytest.raises(AirflowException) as caught:
        rollout(namespace, "raise SystemExit(75)").execute(context)
    assert not isinstance(caught.value, AirflowFailException)
    decision = decision_on(cluster.get("Service", "digits"))
    assert (decision.live, decision.candidate) == (None, None)
    assert decision.outcome_of(ATTEMPT).result == "interrupted"
    assert "its driver was ended" in str(caught.value)


@pytest.fixture
def as_worker(namespace, cluster, monkeypatch):
    """The rights of docs/cluster-roles/worker.yaml, and no others, by a connection of Airflow's."""
    kubectl(namespace, "apply", "-f", str(REPOSITORY / "docs/cluster-roles/worker.yaml"))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "worker-token",
            "annotations": {"kubernetes.io/service-account.name": "model-deploy-worker"},
        },
    }
    kubectl(namespace, "apply", "-f", "-", given=json.dumps(secret))
    until = time.monotonic() + 20
    while "token" not in (found := cluster.get("Secret", "worker-token").get("data") or {}):
        assert time.monotonic() < until
        time.sleep(0.2)
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    config["users"] = [{"name": "worker", "user": {"token": base64.b64decode(found["token"]).decode()}}]
    for one in config["contexts"]:
        one["context"]["user"] = "worker"
    extra = {"kube_config": json.dumps(config), "namespace": namespace}
    connection = {"conn_type": "kubernetes", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    monkeypatch.delenv("KUBECONFIG")  # nothing of this machine's own is left to fall back on
    return config


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_workers_role_is_enough_for_all_that_a_worker_does(
    cluster, namespace, context, delivered, as_worker, deferrable
):
    from airflow_model_deploy.operators.clusters import cluster_connections, open_cluster

    fields = cluster_connections({})["cluster"]
    with open_cluster(fields, namespace) as ours:
        half_way(cluster, deliver_by=ours)
    task = rollout(None, "raise SystemExit(75)", deferrable=deferrable)
    if deferrable:
        trigger, kwargs, given = deferred(task, context)
        assert as_worker["users"][0]["user"]["token"] not in json.dumps(kwargs)
        event = event_of(type(trigger)(**given))
        assert event["status"] == "failed", event
        task = rollout(None)
    with pytest.raises(AirflowException, match="its driver was ended"):
        task.trigger_reentry(context, event, **kwargs) if deferrable else task.execute(context)
    assert decision_on(cluster.get("Service", "digits")).outcome_of(ATTEMPT).result == "interrupted"
    assert md.ModelServiceSensor(task_id="wait", name="digits").poke({}) is False


def test_a_killed_deferred_task_has_its_traffic_given_back_by_the_trigger(
    cluster, namespace, context, delivered, monkeypatch
):
    from airflow_model_deploy.triggers import driver_pod

    monkeypatch.setattr(driver_pod, "_PATIENCE_S", 1.0)
    trigger, _, fields = deferred(rollout(namespace, SLEEP, deferrable=True), context)
    half_way(cluster)
    asyncio.run(type(trigger)(**fields).on_kill())
    pod = cluster.get("Pod", fields["pod_name"])
    assert pod is None or pod["metadata"]["deletionTimestamp"]
    assert decision_on(cluster.get("Service", "digits")).outcome_of(ATTEMPT).result == "interrupted"


def half_way(cluster, deliver_by=None):
    """Leave a first revision half way, as a driver that was killed does."""
    from airflow_model_deploy.engine.deployment import kubernetes
    from airflow_model_deploy.engine.deployment.targets.kubernetes import objects
    from airflow_model_deploy.engine.packaging import Release
    from tests.engine.deployment.cluster.rollouts import release_of

    image = f"{os.environ.get('TESTBED_REGISTRY', 'localhost:5000')}/nobody/has-this@sha256:" + "d" * 64
    content = json.loads(release_of(SimpleNamespace(image=image)))
    content["plan"]["name"] = "digits"
    text = json.dumps(content, sort_keys=True).encode()
    found = kubernetes.deliver(deliver_by or cluster, text, b'{"golden": "golden.json"}', b"{}")
    target = kubernetes.target_of(Release.from_json(content), cluster.namespace)
    cluster.apply(objects.deployment(target))
    write(
        cluster,
        candidate=found.revision,
        action="deploy",
        stage="private",
        attempt=ATTEMPT,
        releases={found.revision: found.map_name},
    )


def test_a_sensor_waits_for_a_confirmed_revision_and_not_for_one_that_was_sent_back(cluster, namespace):
    def look(**arguments):
        return md.ModelServiceSensor(task_id="wait", name="digits", namespace=namespace, **arguments).poke({})

    assert look() is False  # no such service yet
    write(cluster, candidate="b" * 12, action="deploy", stage="private")
    assert look() is False
    write(cluster, live="a" * 12, candidate="b" * 12, action="deploy", stage="switched")
    assert look() is False
    assert look(revision="b" * 12) is False
    write(cluster, live="b" * 12, previous="a" * 12, outcome=outcome("promoted"))
    assert look() is True
    assert look(revision="b" * 12) is True
    assert look(revision="c" * 12) is False
    write(cluster, live="a" * 12, outcome=outcome("rolled back"))
    assert look() is True
    with pytest.raises(AirflowFailException, match=r"was rolled back.*it was rolled back"):
        look(revision="b" * 12)
    back = outcome("promoted", action="rollback", revision="a" * 12)
    write(cluster, live="a" * 12, previous="b" * 12, outcome=back)
    with pytest.raises(AirflowFailException, match="was rolled back"):
        look(revision="b" * 12)
    # It is tried again.
    write(cluster, live="a" * 12, candidate="b" * 12, stage="shared", outcome=outcome("rolled back"))
    assert look(revision="b" * 12) is False


def test_a_rollback_in_the_middle_of_a_deployment_has_done_what_it_should(cluster, namespace, context):
    attempt = "dag/run 1/deploy/-1"
    task = md.RollbackOperator(
        task_id="back",
        name="digits",
        target="kubernetes",
        image=PYTHON,
        cmds=["python3", "-c", "print('back')"],
        base_container_status_polling_interval=0.2,
        startup_check_interval_seconds=1,
        kubernetes=md.KubernetesConfig(namespace=namespace, service_account="default"),
    )
    write(cluster, live="a" * 12, outcome=outcome("rolled back", attempt=attempt))
    result = task.execute(context)
    assert (result["step"], result["artifact"], result["details"]["revision"]) == ("rollback", None, "a" * 12)
    assert asdict(outcome("rolled back", attempt=attempt)) == result["details"]["outcome"]
