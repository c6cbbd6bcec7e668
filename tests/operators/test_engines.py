"""Engines and registries: connections reach the step, and nobody else."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, Param

import airflow_model_deploy as md
from airflow_model_deploy.operators import execution, placement
from airflow_model_deploy.operators.engines import docker_connections, engine_fields
from airflow_model_deploy.runners.base import Runner

SECRET = "h4rdly-guessed"  # noqa: S105


@pytest.fixture
def registry_connection(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MODELS", f"docker://builder:{SECRET}@registry.example:5000")
    return "models"


def package(**arguments):
    arguments = {"target": "docker", **arguments}
    return md.BuildImageOperator(task_id="package", servable={}, plan={}, **arguments)


def test_the_connection_gives_registry_user_and_password(registry_connection, monkeypatch):
    found = docker_connections({"conn_id": registry_connection})
    assert found["engine"] == {}  # DOCKER_HOST and its certificates are the step's own business
    assert found["registries"] == [
        {"registry": "registry.example:5000", "username": "builder", "password": SECRET}
    ]
    assert docker_connections({"url": "tcp://edge-7:2375"})["registries"] == []


def test_the_setting_names_the_connection_where_the_dag_does_not(registry_connection, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__DOCKER_CONN_ID", registry_connection)
    assert docker_connections({})["registries"][0]["password"] == SECRET


def test_a_connection_without_a_registry_is_refused_by_what_it_lacks(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", json.dumps({"conn_type": "docker", "login": "x"}))
    with pytest.raises(AirflowFailException, match=r"'empty' names no registry.*no host"):
        docker_connections({"conn_id": "empty"})


def test_a_registry_without_tls_is_named_by_its_scheme_and_one_for_anybody_has_no_login(monkeypatch):
    connection = {"conn_type": "docker", "host": "http://registry.lan", "port": 5000}
    monkeypatch.setenv("AIRFLOW_CONN_LAN", json.dumps(connection))
    found = docker_connections({"conn_id": "lan"})
    assert (found["registries"], found["insecure"]) == ([], ["registry.lan:5000"])


def test_one_certificate_of_three_is_refused():
    with pytest.raises(
        AirflowFailException, match="found: ca_cert; wanted: ca_cert, client_cert, client_key"
    ):
        engine_fields({"url": "tcp://edge-7:2376", "ca_cert": "/ca.pem"})


def test_who_only_watches_or_rolls_back_gets_no_password(registry_connection, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__DOCKER_CONN_ID", "not-there-at-all")
    docker = md.DockerConfig(url="tcp://edge-7:2375", conn_id=registry_connection)
    back = md.RollbackOperator(task_id="back", name="digits", target="docker", docker=docker)
    assert back.connections() == {"engine": {"url": "tcp://edge-7:2375"}}
    assert md.RollbackOperator(task_id="back_on_host", name="digits").connections() == {}


def test_what_talks_to_engines_stays_on_the_worker():
    with pytest.raises(ValueError, match="container of BuildImageOperator"):
        package(container=md.ContainerConfig(image="worker"))


def test_a_limit_that_is_no_number_is_named(context, tmp_path):
    task = md.OptimizeModelOperator(
        task_id="optimize", model={}, container=md.ContainerConfig(image="worker", memory_bytes="8g")
    )
    with pytest.raises(AirflowFailException, match="memory_bytes of ContainerConfig; found: '8g'"):
        placement.container_runner(task.container, log=task.log)


def test_credentials_go_to_the_runner_and_into_no_request(
    registry_connection, tmp_path, context, monkeypatch
):
    seen = {}

    class Recording(Runner):
        def start(self, request, *, store_options=None, connections=None):
            seen.update(request=json.dumps(request.to_json()), connections=connections)
            return {}

        def wait(self):
            from airflow_model_deploy.engine.steps import StepResult

            return StepResult(step="package", status="succeeded")

        def resume(self, handle, request, *, store_options=None, connections=None):
            raise NotImplementedError

        def cancel(self):
            raise NotImplementedError

    monkeypatch.setattr(execution, "worker_runner", lambda python, log: Recording())
    task = package(
        docker=md.DockerConfig(conn_id=registry_connection),
        image=md.ImageConfig(registry="registry.example:5000/models"),
        store=f"file://{tmp_path}/store",
    )
    reference = {
        "uri": f"file://{tmp_path}/store/artifacts/sha256-{'0' * 64}",
        "digest": "sha256:" + "0" * 64,
    }
    task.inputs = {"servable": reference, "plan": reference}
    result = task.execute(context)
    assert seen["connections"]["registries"][0]["password"] == SECRET
    assert SECRET not in seen["request"] + json.dumps(result) + repr(task.__dict__)
    assert '"registry": "registry.example:5000/models"' in seen["request"]


def test_a_host_is_packaged_without_an_engine_or_a_registry(registry_connection, monkeypatch, context):
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__DOCKER_CONN_ID", registry_connection)
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__REGISTRY", "registry.example:5000/models")
    task = package(target="host")
    assert task.connections() == {}
    assert task.full_spec(context) == {"target": "host"}


def test_settings_fill_what_the_dag_leaves_open(monkeypatch, context):
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__REGISTRY", "registry.example:5000/models")
    monkeypatch.setenv("AIRFLOW__MODEL_DEPLOY__BASE_IMAGE", "registry.example:5000/python:3.12-slim")
    assert package().full_spec(context) == {
        "target": "docker",
        "registry": "registry.example:5000/models",
        "base_image": "registry.example:5000/python:3.12-slim",
        "backend": "auto",
    }
    named = package(image=md.ImageConfig(registry="other.example", backend="oci"))
    assert named.full_spec(context)["registry"] == "other.example"


def test_templates_reach_engine_image_and_container(context):
    with DAG("d", schedule=None, params={"edge": Param("edge-7", type="string")}):
        task = package(
            docker=md.DockerConfig(url="tcp://{{ params.edge }}:2376"),
            image=md.ImageConfig(registry="{{ params.edge }}:5000"),
        )
        computing = md.OptimizeModelOperator(
            task_id="optimize",
            model={},
            container=md.ContainerConfig(image="{{ params.edge }}:5000/worker", cpus="{{ 1 + 1 }}"),
        )
    context["params"] = {"edge": "edge-7"}
    task.render_template_fields(context)
    computing.render_template_fields(context)
    assert task.docker["url"] == "tcp://edge-7:2376"
    assert task.image["registry"] == "edge-7:5000"
    assert (computing.container["image"], computing.container["cpus"]) == ("edge-7:5000/worker", "2")


def test_a_container_without_a_worker_image_is_refused_before_anything_starts(context, tmp_path):
    task = md.OptimizeModelOperator(
        task_id="optimize", model={}, container=md.ContainerConfig(), store=f"file://{tmp_path}"
    )
    with pytest.raises(AirflowFailException, match="no worker image is named"):
        placement.container_runner(task.container, log=task.log)


def test_the_pipeline_puts_the_computing_tasks_into_containers_and_leaves_the_others(context):
    container = md.ContainerConfig(image="worker@sha256:" + "0" * 64)
    with DAG("d", schedule=None):
        pipeline = md.model_deploy_pipeline(name="digits", run=md.RunConfig(container=container))
    computing = ("train", "compress", "quantize", "optimize", "build", "test")
    for name in computing:
        assert getattr(pipeline, f"{name}_model").container == asdict(container), name
    assert pipeline.prepare_deployment.container == asdict(container)
    for task in (pipeline.package_image, pipeline.monitor_model):
        assert task.container is None
