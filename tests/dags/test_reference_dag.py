"""The reference Dag as Airflow sees it: parsed, serialized, its form, its limits."""

from __future__ import annotations

from itertools import pairwise

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from tests.conftest import REPOSITORY

STAGES = [
    "train_model",
    "compress_model",
    "quantize_model",
    "optimize_model",
    "build_model",
    "test_model",
    "prepare_deployment",
    "package_image",
    "deploy_model",
    "monitor_model",
]


@pytest.fixture(scope="module")
def dag():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(REPOSITORY / "dags"))
    assert bag.import_errors == {}
    assert set(bag.dags) == {"model_deploy"}  # the models' own code beside it is no Dag
    return bag.dags["model_deploy"]


def test_ten_tasks_named_after_the_flow_in_its_order(dag):
    order = [task.task_id for task in dag.topological_sort()]
    assert order == STAGES
    for before, after in pairwise(STAGES):
        assert before in dag.get_task(after).get_flat_relative_ids(upstream=True)


def test_every_task_has_an_owner_a_timeout_and_two_retries(dag):
    for task in dag.tasks:
        assert task.owner == "ml-platform"
        assert task.execution_timeout is not None
        assert task.retries == 2


def test_it_runs_one_at_a_time_never_catches_up_and_refuses_backfills(dag):
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    allowed = {str(getattr(kind, "value", kind)) for kind in dag.allowed_run_types}
    assert "backfill" not in allowed
    assert {"manual", "scheduled", "asset_triggered"} <= allowed


def test_the_form_reads_well(dag):
    for name in dag.params:
        param = dag.params.get_param(name)
        schema = param.schema
        assert schema["title"], name
        assert len(param.description) > 20, name
        assert schema["section"] in ("Model", "Compression", "Service", "Kubernetes"), name
        # The form refuses an empty text where null isn't allowed, and then can't be sent at all.
        assert param.value != "", name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_name", "os.system"),
        ("method", "smallest"),
        ("max_size_mb", 0),
        ("prune_ratio", 1.0),
        ("prune_ratio", "much"),
        ("port", 80),
        ("target", "moon"),
        ("namespace", "Models"),
        ("strategy", "big-bang"),
        ("replicas", 0),
        ("bake_seconds", -1),
        ("bake_seconds", 86400),
        ("epochs", 0),
        ("quantization", "int4"),
    ],
)
def test_the_form_refuses_what_cannot_be(dag, name, value):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises((ParamValidationError, ValueError)):
        dag.params.get_param(name).resolve(value)


def test_a_first_try_needs_no_traffic_and_the_longest_watch_fits_the_tasks_time(dag):
    from airflow_model_deploy.engine.packaging import Rollout

    bake = dag.params.get_param("bake_seconds")
    assert bake.value == 0  # more would send the second release of a quiet service back
    assert "traffic" in bake.description
    rollout, timeout_s = Rollout(), dag.get_task("deploy_model").execution_timeout.total_seconds()
    watched = (len(rollout.weights) + 1) * (bake.schema["maximum"] + rollout.hold_s)
    assert watched + 1200 <= timeout_s  # the rest is for images and models that load


def test_it_survives_serialization_with_nothing_secret_or_unstable_in_it(dag):
    once, twice = (DagSerialization.to_dict(dag) for _ in range(2))
    assert once == twice
    assert " at 0x" not in str(once)  # an address would make a new version of the Dag at each parse
    assert set(DagSerialization.from_dict(once).task_dict) == set(STAGES)


def test_every_stage_that_makes_a_model_announces_it(dag):
    outlets = {task.task_id: [asset.name for asset in task.outlets] for task in dag.tasks if task.outlets}
    assert outlets == {
        "train_model": ["model-deploy/trained"],
        "quantize_model": ["model-deploy/quantized"],
        "build_model": ["model-deploy/built"],
        "package_image": ["model-deploy/released"],
        "deploy_model": ["model-deploy/deployed"],
    }
