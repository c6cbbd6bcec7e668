"""The driver's pod and its settings: what is asked of the cluster, by whose rights, and what reaches nobody else."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, fields
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, Param
from kubernetes.client import ApiClient

import airflow_model_deploy as md
from airflow_model_deploy.engine.packaging import Rollout, Workload
from airflow_model_deploy.engine.steps import get_step
from airflow_model_deploy.engine.steps.spec import parse_spec
from airflow_model_deploy.operators import clusters, driver_spec
from airflow_model_deploy.operators.verdict import Driven
from tests.engine.deployment.cluster.pod_security import violations

DRIVEN = Driven("deploy", "digits", "models", "dag/run 1/deploy/-1/1", "3f9a1c2b4d5e", "digits-3f9a1c2b4d5e")
SECRET = "h4rdly-guessed"  # noqa: S105
KUBECONFIG = {"apiVersion": "v1", "users": [{"name": "me", "user": {"token": SECRET}}]}


@pytest.fixture(autouse=True)
def driver_image(monkeypatch):
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__DRIVER_IMAGE", "registry.example/driver@sha256:" + "a" * 64)


def pod_of(task, driven=DRIVEN):
    task.adopt()
    driver_spec.send(task, driven)
    with task._without_sidecar():
        pod = task.build_pod_request_obj(dry_run=True)
    return ApiClient().sanitize_for_serialization(pod)


def rollout(**arguments):
    arguments.setdefault("kubernetes", md.KubernetesConfig(namespace="models"))
    return md.RolloutOperator(task_id="deploy", release={}, target="kubernetes", **arguments)


def test_the_pod_is_what_a_restricted_namespace_takes_and_one_container_only():
    pod = pod_of(rollout())
    spec, metadata = pod["spec"], pod["metadata"]
    assert violations(spec) == []
    assert [one["name"] for one in spec["containers"]] == ["base"]
    assert spec["containers"][0] == {
        "name": "base",
        "image": "registry.example/driver@sha256:" + "a" * 64,
        "args": spec["containers"][0]["args"],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": "512Mi", "ephemeral-storage": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"mountPath": "/tmp", "name": "tmp"}],  # noqa: S108
    } | {
        key: spec["containers"][0][key]
        for key in ("command", "env", "envFrom", "ports")
        if key in spec["containers"][0]
    }
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}]
    assert spec["serviceAccountName"] == "model-deploy-driver"
    assert spec["automountServiceAccountToken"] is True
    assert spec["terminationGracePeriodSeconds"] == 60
    assert spec["restartPolicy"] == "Never"
    assert metadata["namespace"] == "models"
    assert metadata["name"].startswith("digits-deploy-")
    assert pod_of(rollout())["metadata"]["name"] != metadata["name"]


def test_the_drivers_pod_is_found_by_the_policy_and_by_no_service():
    from airflow_model_deploy.engine.deployment import kubernetes
    from airflow_model_deploy.engine.deployment.targets.kubernetes.names import SERVICE

    metadata = pod_of(rollout())["metadata"]
    assert kubernetes.DRIVER.items() <= metadata["labels"].items()
    assert SERVICE not in metadata["labels"]
    assert Driven.from_json(metadata["annotations"][driver_spec.DRIVEN]) == DRIVEN


def test_its_arguments_are_a_request_that_the_step_takes():
    from airflow_model_deploy.engine.steps import StepRequest

    run, step, flag, text = pod_of(rollout())["spec"]["containers"][0]["args"]
    assert (run, step, flag) == ("run", "deploy", "--json")
    request = StepRequest.from_json(json.loads(text))
    spec = parse_spec(get_step("deploy").spec, request.spec, step="deploy")
    assert (spec.target, spec.namespace, spec.name) == ("kubernetes", "models", "digits")
    assert (spec.delivered, spec.attempt) == (DRIVEN.delivered, DRIVEN.attempt)
    back = Driven("rollback", "digits", "models", "dag/run 1/back/-1")
    task = md.RollbackOperator(
        task_id="back", name="digits", target="kubernetes", kubernetes=md.KubernetesConfig(namespace="models")
    )
    request = StepRequest.from_json(json.loads(pod_of(task, back)["spec"]["containers"][0]["args"][3]))
    parse_spec(get_step("rollback").spec, request.spec, step="rollback")


def test_what_an_author_says_of_the_pod_goes_before_the_settings():
    task = rollout(
        image="mine:1",
        namespace="elsewhere",
        service_account_name="somebody",
        termination_grace_period=90,
        labels={"team": "vision"},
        kubernetes=md.KubernetesConfig(
            namespace="models", driver_image="other:1", image_pull_secrets=("pull",)
        ),
    )
    pod = pod_of(task)
    assert pod["spec"]["containers"][0]["image"] == "mine:1"
    assert pod["metadata"]["namespace"] == "elsewhere"
    assert pod["spec"]["serviceAccountName"] == "somebody"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 90
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["metadata"]["labels"]["team"] == "vision"


def test_default_args_reach_the_pod():
    with DAG("d", schedule=None, default_args={"termination_grace_period": 45, "deferrable": True}):
        task = rollout()
    assert pod_of(task)["spec"]["terminationGracePeriodSeconds"] == 45
    assert task.deferrable is True


def test_the_settings_are_rendered():
    with DAG("d", schedule=None, params={"namespace": Param("vision", type="string"), "wait": Param(True)}):
        task = rollout(
            kubernetes=md.KubernetesConfig(
                namespace="{{ params.namespace }}",
                driver_image="d:{{ 1 + 1 }}",
                deferrable="{{ params.wait }}",
            )
        )
    task.render_template_fields({"params": {"namespace": "vision", "wait": True}})
    pod = pod_of(task)
    assert pod["metadata"]["namespace"] == "vision"
    assert pod["spec"]["containers"][0]["image"] == "d:2"
    assert task.deferrable is True


def test_without_a_driver_image_it_fails_for_good(monkeypatch):
    monkeypatch.delenv("AIRFLOW__MODEL_DEPLOY__DRIVER_IMAGE")
    with pytest.raises(AirflowFailException, match="no driver image is named"):
        rollout().adopt()


def test_the_connection_gives_what_is_listed_and_it_stays_private(monkeypatch):
    extra = {
        "kube_config": json.dumps(KUBECONFIG),
        "namespace": "vision",
        "cluster_context": "c",
        "nonsense": 1,
    }
    connection = {"conn_type": "kubernetes", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MODELS_CLUSTER", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__KUBERNETES_CONN_ID", "models_cluster")
    task = rollout(kubernetes=md.KubernetesConfig())
    pod = pod_of(task)
    assert pod["metadata"]["namespace"] == "vision"
    assert task.cluster_fields() == {"kubeconfig": KUBECONFIG, "context": "c"}
    assert SECRET not in json.dumps(pod)
    assert SECRET not in repr(clusters.open_cluster(task.cluster_fields(), "vision").connection)


def test_a_connection_that_nobody_has_made_is_the_machines_own():
    assert clusters.cluster_connections({}) == {"cluster": {}}
    assert clusters.namespace_of({}) == "default"


@pytest.mark.parametrize(
    "wrong", [{"kube_config": "{", "x": SECRET}, {"in_cluster": True, "kube_config_path": "/k"}]
)
def test_a_connection_that_cannot_be_is_refused_without_its_content(wrong):
    with pytest.raises(AirflowFailException) as caught:
        clusters.cluster_fields(wrong | {"kube_config": wrong.get("kube_config") and f"{SECRET}: [{{"})
    assert SECRET not in str(caught.value)


def test_the_authors_settings_become_the_plans():
    config = md.KubernetesConfig(
        replicas="3",
        max_replicas="None",
        gpus="",
        topology_key=None,
        tolerations=({"key": "gpu", "operator": "Exists"},),
        rollout=md.RolloutConfig(strategy="canary", weights=("0.2", 0.4), bake_s="5", ready_timeout_s="None"),
    )
    task = md.PrepareReleaseOperator(
        task_id="prepare", servable={}, evaluation={}, target="kubernetes", kubernetes=config
    )
    spec = parse_spec(get_step("prepare").spec, task.full_spec({}), step="prepare")
    assert spec.kubernetes == Workload(
        replicas=3, topology_key=None, tolerations=({"key": "gpu", "operator": "Exists"},)
    )
    assert spec.rollout == Rollout(strategy="canary", weights=(0.2, 0.4), bake_s=5.0)
    elsewhere = md.PrepareReleaseOperator(
        task_id="docker", servable={}, evaluation={}, target="docker", kubernetes=config
    )
    assert elsewhere.full_spec({}).keys() == {"target"}


def test_the_settings_have_every_field_of_the_plan_and_its_defaults():
    measured = {"model_bytes", "load_s"}
    config = clusters.plan_fields(asdict(md.KubernetesConfig()))
    assert {one.name for one in fields(Workload)} - measured == config["kubernetes"].keys()
    assert Workload(**config["kubernetes"]) == Workload()
    assert Rollout(**config["rollout"]) == Rollout()
    assert {one.name for one in fields(Rollout)} == config["rollout"].keys()


def test_monitoring_reaches_the_cluster_from_the_worker(monkeypatch, context):
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": "/k", "namespace": "vision"}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    task = md.MonitorReleaseOperator(
        task_id="monitor", release={}, target="kubernetes", kubernetes=md.KubernetesConfig()
    )
    assert task.full_spec(context) == {"target": "kubernetes", "namespace": "vision"}
    assert task.connections() == {"cluster": {"path": "/k"}}


def test_the_trigger_comes_back_as_it_was_and_knows_what_is_at_stake():
    import datetime

    from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

    from airflow_model_deploy.triggers.driver_pod import DriverPodTrigger

    plain = KubernetesPodTrigger(
        "pod", "models", datetime.datetime.now(datetime.UTC), "base", termination_grace_period=60
    )
    path, fields = DriverPodTrigger.of(plain, DRIVEN.to_json()).serialize()
    assert path == "airflow_model_deploy.triggers.driver_pod.DriverPodTrigger"
    again = DriverPodTrigger(**fields)
    assert Driven.from_json(again.driven) == DRIVEN
    assert again.serialize() == (path, fields)
    assert again.termination_grace_period == 60


def test_the_name_of_an_attempt_stays_readable_and_fits_the_spec(context):
    from airflow_model_deploy.operators.attempts import attempt_of

    assert attempt_of(context, each_try=True) == "dag/run 1/task/-1/1"
    assert attempt_of(context, each_try=False) == "dag/run 1/task/-1"
    context["ti"].dag_id = context["ti"].run_id = "d" * 250
    context["ti"].task_id = "t" * 250
    first = attempt_of(context, each_try=True)
    task = md.RollbackOperator(task_id="back", name="digits")
    spec = parse_spec(get_step("rollback").spec, task.full_spec(context), step="rollback")
    assert spec.attempt == attempt_of(context, each_try=False)
    context["ti"].try_number = 2
    assert len({first, attempt_of(context, each_try=True), spec.attempt}) == 3
    assert spec.attempt == attempt_of(context, each_try=False)


def test_a_rollback_in_a_cluster_opens_no_store(context, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__STORE", "s3://models/store")
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__STORE_CONN_ID", "renamed-by-somebody")
    task = md.RollbackOperator(
        task_id="back", name="digits", target="kubernetes", kubernetes=md.KubernetesConfig(namespace="models")
    )
    monkeypatch.setattr(task, "drive", lambda driven, _: driven)
    assert task.execute(context) == Driven("rollback", "digits", "models", "dag/run 1/task/-1")


def test_a_kill_while_the_driver_is_made_ends_it(context, monkeypatch):
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    task, deleted, pod = rollout(), [], SimpleNamespace()

    def created(*_):
        task.on_kill()  # Airflow's signal comes in the middle of it, and returns into it
        return pod

    monkeypatch.setattr(KubernetesPodOperator, "get_or_create_pod", created)
    monkeypatch.setattr(
        KubernetesPodOperator, "pod_manager", SimpleNamespace(delete_pod=deleted.append), raising=False
    )
    with pytest.raises(InterruptedError):
        task.get_or_create_pod(None, context)
    assert deleted == [pod]


def test_what_we_override_of_the_providers_classes_is_there():
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

    for name in (
        "get_or_create_pod",
        "find_pod",
        "trigger_reentry",
        "on_kill",
        "convert_config_file_to_dict",
    ):
        assert callable(getattr(KubernetesPodOperator, name)), name
    assert "on_kill" in vars(KubernetesPodTrigger)
    assert rollout().on_kill_action.value == "delete_pod"


def test_what_a_worker_imports_for_all_tasks_is_free_of_the_clusters_client():
    import subprocess
    import sys

    names = ("sensors.model_service", "operators.prepare", "operators.placement", "runners", "links")
    code = (
        "import sys; sys.modules['kubernetes'] = sys.modules['kubernetes_asyncio'] = None; import "
        + ", ".join(f"airflow_model_deploy.{name}" for name in names)
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_sensor_that_cannot_look_now_looks_again(monkeypatch):
    from airflow_model_deploy.engine.errors import UnavailableError
    from airflow_model_deploy.operators import verdict

    def away(*_):
        raise UnavailableError("the API server", found="no answer", wanted="one", remedy="wait")

    monkeypatch.setattr(verdict, "read_decision", away)
    monkeypatch.setattr(clusters, "open_cluster", lambda *_, **__: nullcontext())
    assert md.ModelServiceSensor(task_id="wait", name="digits").poke({}) is False


def test_there_is_no_link_to_a_service_that_no_browser_reaches(monkeypatch):
    from airflow.providers.common.compat.sdk import XCom

    from airflow_model_deploy.links import ServiceLink

    for url, link in (("http://digits.models.svc:80", ""), ("http://10.0.0.7:80", "http://10.0.0.7:80")):
        monkeypatch.setattr(XCom, "get_value", lambda url=url, **_: {"details": {"url": url}})
        assert ServiceLink().get_link(None, ti_key=SimpleNamespace()) == link


def test_the_link_to_the_deployment_is_the_settings(monkeypatch):
    from airflow.providers.common.compat.sdk import XCom

    from airflow_model_deploy.links import DeploymentLink

    details = {"namespace": "models", "name": "digits", "url": "http://digits.models.svc:80"}
    monkeypatch.setattr(XCom, "get_value", lambda **_: {"details": details})
    key = SimpleNamespace()
    assert DeploymentLink().get_link(None, ti_key=key) == ""
    pattern = "https://cluster.example/{namespace}/services/{name}?q={x}"
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__DEPLOYMENT_URL", pattern)
    assert (
        DeploymentLink().get_link(None, ti_key=key) == "https://cluster.example/models/services/digits?q={x}"
    )
    monkeypatch.setattr(XCom, "get_value", lambda **_: {"details": {"url": "http://127.0.0.1:8500"}})
    assert DeploymentLink().get_link(None, ti_key=key) == ""


def test_the_link_to_the_report_is_the_settings(monkeypatch):
    from airflow_model_deploy.links import ReportLink

    key = SimpleNamespace(dag_id="digits", run_id="manual__2026-01-31T10:00:00+00:00")
    assert ReportLink().get_link(None, ti_key=key) == ""
    pattern = "https://reports.example/{dag_id}/{run_id}/report.html?{x}"
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__REPORT_URL", pattern)
    run = "manual__2026-01-31T10%3A00%3A00%2B00%3A00"
    assert (
        ReportLink().get_link(None, ti_key=key) == f"https://reports.example/digits/{run}/report.html?{{x}}"
    )
