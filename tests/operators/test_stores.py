"""The store's connection: it opens the store wherever a step runs, and is seen nowhere."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, Param

import airflow_model_deploy as md
from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.operators.stores import store_options
from tests.flows.small_onnx import write_model
from tests.s3 import KEY, SECRET, serving

URL = "s3://models/store"


@pytest.fixture
def connected(monkeypatch):
    def connect(**fields):
        fields = {"conn_type": "aws", "login": KEY, "password": SECRET, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_MODELS_STORE", json.dumps(fields))
        return "models_store"

    return connect


def test_what_is_listed_of_a_connection_becomes_the_file_systems_options(connected):
    extra = {
        "endpoint_url": "https://s3.example:9000",
        "region_name": "eu-1",
        "aws_session_token": "t0ken",
        "addressing_style": "path",
        "verify": "false",
        "unused_by_the_form": "",
    }
    assert store_options(URL, connected(extra=extra)) == {
        "key": KEY,
        "secret": SECRET,
        "token": "t0ken",
        "endpoint_url": "https://s3.example:9000",
        "client_kwargs": {"region_name": "eu-1", "verify": False},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }


def test_a_connection_without_a_login_leaves_it_to_the_machine(connected):
    found = store_options(URL, connected(login=None, password=None, extra={"region_name": "eu-1"}))
    assert found == {"client_kwargs": {"region_name": "eu-1"}}
    assert store_options(URL, connected(login=None, password=None, extra={"anonymous": "true"})) == {
        "anon": True
    }


def test_the_setting_names_it_and_a_folder_needs_none(connected, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__STORE_CONN_ID", connected())
    assert store_options(URL, None) == {"key": KEY, "secret": SECRET}
    assert store_options(URL, "None") == {"key": KEY, "secret": SECRET}  # as a template renders it
    assert store_options(f"file://{tmp_path}", None) == {}
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__STORE", URL)
    assert store_options(None, None) == {"key": KEY, "secret": SECRET}


def test_the_setting_is_for_the_stores_that_take_a_connection(connected, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__STORE_CONN_ID", connected())
    assert store_options("gs://models/store", None) == {}


@pytest.mark.parametrize(
    ("url", "fields", "words"),
    [
        (URL, {"conn_type": "docker"}, "found: type docker; wanted: one of aws, generic"),
        (
            URL,
            {"extra": {"role_arn": "arn:aws:iam::1:role/x"}},
            "found: role_arn; wanted: none but endpoint_url",
        ),
        (URL, {"host": "minio.internal", "port": 9000}, "found: a host or a port; wanted: none"),
        (URL, {"password": None}, "found: one of login and password"),
        (URL, {"extra": {"endpoint_url": f"https://me:{SECRET}@s3"}}, "found: credentials in endpoint_url"),
        ("gs://models/store", {}, "found: gs://; wanted: s3://"),
    ],
)
def test_what_would_open_another_store_is_refused_by_name(connected, url, fields, words):
    with pytest.raises(AirflowFailException) as caught:
        store_options(url, connected(**fields))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.timeout(180)
def test_a_step_on_the_worker_reads_and_writes_it_and_its_secret_is_nowhere(
    connected, context, tmp_path, monkeypatch, capfd
):
    write_model(tmp_path / "model.onnx", seed=0)
    with serving() as s3:
        monkeypatch.setenv("AIRFLOW_CONN_MODELS_STORE", s3.connection)
        task = md.IngestModelOperator(
            task_id="ingest",
            name="toy",
            source=str(tmp_path / "model.onnx"),
            store=s3.url,
            store_conn_id="models_store",
        )
        result = task.execute(context)
        store = Store(s3.url, s3.options)
        assert store.has(store.reference(result["artifact"]["digest"]))
        (name,) = store._fs.find(f"{store._root}/runs")
        kept = store._fs.cat_file(name).decode()
    everywhere = "".join(capfd.readouterr()) + json.dumps(result) + kept + repr(task.__dict__)
    assert SECRET not in everywhere
    assert KEY not in everywhere


def test_a_store_that_cannot_be_opened_fails_for_good_and_is_named(connected, context):
    task = md.OptimizeModelOperator(
        task_id="optimize",
        model={},
        store="s3://no-such-bucket/store",
        store_conn_id=connected(extra={"endpoint_url": "no-url"}),
    )
    task.inputs = {"model": {"uri": "s3://no-such-bucket/store/artifacts/x", "digest": "sha256:" + "0" * 64}}
    with pytest.raises(AirflowFailException, match="no-url") as caught:
        task.execute(context)
    assert SECRET not in str(caught.value)


def test_pods_and_containers_exclude_each_other_and_acting_steps_take_neither(context):
    both = {"container": md.ContainerConfig(image="worker"), "pod": md.PodConfig(image="worker")}
    with pytest.raises(AirflowFailException, match="container and pod of optimize"):
        md.OptimizeModelOperator(task_id="optimize", model={}, **both)._make_runner(context)
    with pytest.raises(ValueError, match="pod of BuildImageOperator; found: a PodConfig"):
        md.BuildImageOperator(task_id="package", servable={}, plan={}, pod=both["pod"])


def test_a_pod_in_default_args_is_for_the_computing_steps_only():
    pod = md.PodConfig(image="worker")
    with DAG("d", schedule=None, default_args={"pod": pod}):
        optimize = md.OptimizeModelOperator(task_id="optimize", model={})
        package = md.BuildImageOperator(task_id="package", servable={}, plan={})
        monitor = md.MonitorReleaseOperator(task_id="monitor", release={})
    assert optimize.pod == asdict(pod)
    for task in (package, monitor):
        assert (task.pod, task.container) == (None, None)


def test_the_pipeline_hands_pod_and_connection_to_its_tasks_and_templates_reach_them(context):
    run = md.RunConfig(
        store=URL, store_conn_id="{{ params.where }}", pod=md.PodConfig(image="{{ params.where }}/worker")
    )
    with DAG("d", schedule=None, params={"where": Param("edge", type="string")}):
        pipeline = md.model_deploy_pipeline(name="digits", run=run)
    for name in ("train", "compress", "quantize", "optimize", "build", "test"):
        assert getattr(pipeline, f"{name}_model").pod == asdict(run.pod), name
    for task in (pipeline.package_image, pipeline.deploy_model, pipeline.monitor_model):
        assert getattr(task, "pod", None) is None
        assert task.store_conn_id == run.store_conn_id
    context["params"] = {"where": "edge"}
    pipeline.optimize_model.inputs = {}  # what an earlier task would have returned
    pipeline.optimize_model.render_template_fields(context)
    assert pipeline.optimize_model.pod["image"] == "edge/worker"
    assert pipeline.optimize_model.store_conn_id == "edge"
