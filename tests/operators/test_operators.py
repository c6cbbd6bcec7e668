"""The operators: arguments become a validated spec after rendering, results become events, failures fail rightly."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.sdk import DAG, Asset, Param

import airflow_model_deploy as md
from airflow_model_deploy.engine.artifacts import Store

CODE = md.ModelCode(
    factory=md.UserFunction("toy_model:build", {"width": 64}),
    fit=md.UserFunction("toy_model:fit"),
    data=md.DataSource(
        loader=md.UserFunction("toy_data:load", {"seed": 0}),
        fingerprint=md.UserFunction("toy_data:fingerprint"),
    ),
)


@pytest.fixture
def store(tmp_path):
    return f"file://{tmp_path}/store"


@pytest.fixture
def trained(user_code, store, context):
    return md.TrainModelOperator(task_id="train", code=CODE, name="toy", epochs=2, store=store).execute(
        context
    )


def test_a_result_is_small_json_and_the_model_is_in_the_store(trained, store):
    assert len(json.dumps(trained)) < 10_000
    assert trained["step"] == "train"
    folder, _ = Store(store).fetch(Store(store).reference(trained["artifact"]["digest"]))
    assert (folder / "weights.safetensors").stat().st_size > 1000


def test_operators_chain_by_their_results_and_their_assets_carry_digest_and_metrics(trained, store, context):
    asset = Asset(name="model/toy", uri="x-model-deploy://toy")
    context["outlet_events"] = {asset: SimpleNamespace(extra={})}
    prune = md.PruneModelOperator(
        task_id="prune",
        model=trained,
        code={"toy": CODE},
        name="toy",
        method="magnitude-ratio",
        ratio="0.25",
        store=store,
        outlets=[asset],
    )
    result = prune.execute(context)
    assert result["metrics"]["zero_fraction"] == pytest.approx(0.25, abs=0.01)
    assert result["parent"] == trained["artifact"]["digest"]
    extra = context["outlet_events"][asset].extra
    assert extra["digest"] == result["artifact"]["digest"]
    assert extra["metrics"] == result["metrics"]


def test_templates_are_rendered_before_they_are_validated(store, context, user_code):
    with DAG(
        "d", schedule=None, params={"epochs": Param(3, type="integer"), "name": Param("toy", type="string")}
    ):
        task = md.TrainModelOperator(
            task_id="train",
            code={"toy": CODE},
            name="{{ params.name }}",
            epochs="{{ params.epochs }}",
            store=store,
        )
    context["params"] = {"epochs": 3, "name": "toy"}
    task.render_template_fields(context)
    assert task.execute(context)["details"]["epochs"] == 3


def test_templates_reach_a_data_sources_options_but_never_an_import_path(store, context, user_code):
    code = md.ModelCode(
        factory=CODE.factory,
        fit=CODE.fit,
        data=md.DataSource(
            loader=md.UserFunction("toy_data:load", {"seed": "{{ params.seed }}"}), version="{{ 1 + 1 }}"
        ),
    )
    task = md.TrainModelOperator(task_id="train", code=code, name="toy", epochs=1, store=store)
    context["params"] = {"seed": 7}
    spec = task.full_spec(context)
    assert spec["data"].loader.options == {"seed": "7"}
    assert spec["data"].version == "2"
    with pytest.raises(Exception, match="malformed"):
        md.UserFunction("{{ params.factory }}")
    assert not [field for field in task.template_fields if field == "code"]


def test_a_name_that_the_author_has_not_listed_is_refused(store, context):
    task = md.TrainModelOperator(task_id="train", code={"toy": CODE}, name="os", store=store)
    with pytest.raises(AirflowFailException, match=r"no model 'os' is listed.*\['toy'\]"):
        task.execute(context)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.5}, "ratio = 1.5"),
        ({"ratio": "a lot"}, "ratio = 'a lot'"),
        ({"method": "magic"}, "method = 'magic'"),
        ({"recovery_epochs": -1}, "recovery_epochs = -1"),
    ],
)
def test_a_wrong_argument_fails_for_good_before_anything_starts(
    arguments, message, store, context, user_code
):
    task = md.PruneModelOperator(task_id="prune", model={}, code=CODE, store=store, **arguments)
    with pytest.raises(AirflowFailException) as caught:
        task.execute(context)
    assert message in str(caught.value)


def test_what_may_succeed_later_is_retried_and_what_cannot_is_not(store, context, user_code):
    passing = md.ModelCode(factory=CODE.factory, data=CODE.data, fit=md.UserFunction("toy_model:diverge"))
    with pytest.raises(AirflowException) as caught:
        md.TrainModelOperator(task_id="train", code=passing, name="toy", store=store).execute(context)
    assert not isinstance(caught.value, AirflowFailException)
    lasting = md.ModelCode(factory=md.UserFunction("toy_model:nothing"), data=CODE.data, fit=CODE.fit)
    with pytest.raises(AirflowFailException, match="nothing that can be called"):
        md.TrainModelOperator(task_id="train", code=lasting, name="toy", store=store).execute(context)


def test_a_source_is_ingested_instead_of_trained(trained, store, context, user_code):
    task = md.TrainModelOperator(
        task_id="train", code=CODE, name="toy", source=trained["artifact"]["uri"], store=store
    )
    result = task.execute(context)
    assert result["step"] == "ingest"
    assert result["artifact"] == trained["artifact"]


def test_a_target_that_is_not_offered_is_refused_by_name(context):
    task = md.RolloutOperator(task_id="deploy", release={}, target="moon")
    with pytest.raises(AirflowFailException, match=r"'moon'.*'host'"):
        task.execute(context)


def test_the_rollout_is_a_kubernetes_pod_operator_with_templates():
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    assert issubclass(md.RolloutOperator, KubernetesPodOperator)
    task = md.RolloutOperator(task_id="deploy", release={}, target="{{ 'ho' }}st", port="{{ 8000 + 80 }}")
    task.render_template_fields({})
    assert (task.target, task.port) == ("host", "8080")


def test_a_failing_verdict_fails_the_monitor(context, monkeypatch):
    from airflow_model_deploy.operators.base import StepOperator

    verdict = {"status": "failing", "reasons": ["the last probe got no answer"]}
    # The step itself is tested with a real service; here it is only what the operator makes of its verdict.
    monkeypatch.setattr(StepOperator, "execute", lambda self, context: {"details": {"verdict": verdict}})
    with pytest.raises(AirflowFailException, match="the last probe got no answer"):
        md.MonitorReleaseOperator(task_id="monitor", release={}).execute(context)
    lenient = md.MonitorReleaseOperator(task_id="lenient", release={}, fail_on=())
    assert lenient.execute(context)["details"]["verdict"] == verdict


def test_the_pipeline_puts_the_ten_tasks_into_somebodys_dag():
    with DAG("theirs", schedule=None) as dag:
        first = md.model_deploy_pipeline(code=CODE, name="toy", asset="model/toy")
        md.model_deploy_pipeline(code=CODE, name="other", group_id="second")
    assert len(dag.task_ids) == 20
    assert first.train_model.task_id == "model_deploy.train_model"
    assert dag.get_task("model_deploy.monitor_model").upstream_task_ids >= {"model_deploy.deploy_model"}
    assert [asset.name for asset in first.deploy_model.outlets] == ["model/toy/deployed"]
    order = [
        task.task_id.partition(".")[2]
        for task in dag.topological_sort()
        if task.task_id.startswith("model_deploy")
    ]
    assert order[0] == "train_model"
    assert order[-1] == "monitor_model"


def test_a_mapped_operator_gets_its_arguments(store):
    with DAG("mapped", schedule=None) as dag:
        md.TrainModelOperator.partial(task_id="train", code={"a": CODE, "b": CODE}, store=store).expand(
            name=["a", "b"]
        )
    assert dag.get_task("train").is_mapped


def test_an_onnx_file_needs_no_code_and_a_factory_can_say_what_varies(store, context, user_code, tmp_path):
    import importlib

    importlib.import_module("other_onnx").write(tmp_path / "theirs.onnx")
    ingest = md.TrainModelOperator(
        task_id="train", name="theirs", source=str(tmp_path / "theirs.onnx"), store=store
    )
    taken = ingest.execute(context)
    quantized = md.QuantizeModelOperator(task_id="q", model=taken, mode="dynamic", store=store).execute(
        context
    )
    built = md.BuildModelOperator(task_id="b", model=quantized, baseline=taken, store=store).execute(context)
    assert built["details"]["golden_source"] == "random inputs by the signature"
    nothing = md.TrainModelOperator(task_id="train", name="theirs", store=store)
    with pytest.raises(
        AirflowFailException, match=r"no factory, no fit, no data.*name a trained model as the source"
    ):
        nothing.execute(context)

    code = md.ModelCode(
        factory=md.UserFunction("other_lstm:build"),
        fit=md.UserFunction("other_lstm:fit"),
        data=md.DataSource(md.UserFunction("other_lstm:load"), version="1"),
        dynamic={"wave": {1: "time"}},
    )
    train = md.TrainModelOperator(task_id="train", code=code, name="lstm", epochs=1, store=store)
    artifact = Store(store).reference(train.execute(context)["artifact"]["digest"])
    assert Store(store).manifest(artifact).description.signature.dynamic == {"wave": {1: "time"}}


def test_the_pipeline_of_an_onnx_file_needs_no_code():
    with DAG("theirs", schedule=None):
        made = md.model_deploy_pipeline(
            name="theirs",
            source="/models/theirs.onnx",
            compression=md.CompressionConfig(method="none", quantization="dynamic"),
            gates=md.GateConfig(max_quality_drop=None),
        )
    assert made.train_model.step_name() == "ingest"
    assert all(task.code is None for task in (made.compress_model, made.build_model, made.test_model))


@pytest.mark.parametrize("source", ["", "None", None])
def test_a_source_that_the_form_left_empty_means_train(source):
    assert md.TrainModelOperator(task_id="train", code=CODE, name="toy", source=source).step_name() == "train"


def test_without_a_group_the_tasks_stand_in_the_dag_itself():
    with DAG("flat", schedule=None) as dag:
        pipeline = md.model_deploy_pipeline(code=CODE, name="toy", group_id=None)
    assert pipeline.group is None
    assert set(dag.task_group.children) == set(dag.task_ids)
    assert "train_model" in dag.task_ids


@pytest.mark.parametrize("fail_on", ["failed", ("failing", "broken")])
def test_a_verdict_that_does_not_exist_cannot_be_waited_for(fail_on):
    with pytest.raises(ValueError, match="fail_on"):
        md.MonitorReleaseOperator(task_id="monitor", release={}, fail_on=fail_on)


def test_one_verdict_may_stand_alone():
    assert md.MonitorReleaseOperator(task_id="monitor", release={}, fail_on="degraded").fail_on == (
        "degraded",
    )


def test_a_place_that_rendered_to_nothing_is_the_default_one(context):
    task = md.RollbackOperator(task_id="back", name="toy", root="None")
    assert task.full_spec(context)["root"].endswith("/model_deploy/host")


def test_a_result_without_an_artifact_announces_nothing(context):
    from airflow_model_deploy.operators.execution import announce

    asset = Asset(name="model/toy", uri="x-model-deploy://toy")
    context["outlet_events"] = {asset: SimpleNamespace(extra={"kept": True})}
    announce([asset], context, {"step": "rollback", "artifact": None})
    assert context["outlet_events"][asset].extra == {"kept": True}
