from __future__ import annotations

import json

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

import airflow_model_deploy as md

CODE = md.ModelCode(
    factory=md.UserFunction("toy_model:build", {"width": 64}),
    fit=md.UserFunction("toy_model:fit"),
    data=md.DataSource(md.UserFunction("toy_data:load"), version="1"),
    loss="cross_entropy",
)


@pytest.fixture
def store(tmp_path):
    return f"file://{tmp_path}/store"


@pytest.fixture
def trained(user_code, store, context):
    task = md.TrainModelOperator(task_id="train", code=CODE, name="toy", epochs=30, store=store)
    return task.execute(context)


def rendered(operator, context, **params):
    context["params"] = params
    operator.render_template_fields(context)
    return operator.full_spec(context)


def test_a_budget_from_a_form_is_planned_built_and_its_edited_plan_built_again(
    trained, store, context, tmp_path
):
    with DAG("d", schedule=None):
        task = md.AutoCompressModelOperator(
            task_id="compress",
            model=trained,
            code={"toy": CODE},
            name="toy",
            budget=md.Budget(max_drop="{{ params.drop }}", max_size_mb="{{ params.size }}"),
            ratios=[0.5],
            recovery_epochs="5",
            store=store,
        )
    context["params"] = {"drop": 100, "size": None}
    task.render_template_fields(context)
    result = task.execute(context)
    told = result["details"]["plan"]
    assert told["budget"] == {"max_drop": 100.0, "max_size_bytes": None, "max_latency_ms": None}
    assert told["structure"]["ratio"] == 0.5
    assert "sensitivity" not in told
    assert len(json.dumps(result)) < 20_000
    assert result["metrics"]["model_bytes"] < result["metrics"]["baseline_bytes"]

    from airflow_model_deploy.engine.artifacts import Reference, Store

    folder, _ = Store(store).fetch(Reference.from_json(result["artifact"]))
    plan = json.loads((folder / "plan.json").read_text())
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(plan | {"structure": None, "formats": {}}))
    again = md.AutoCompressModelOperator(
        task_id="again", model=trained, code=CODE, budget=100, plan=str(edited), store=store
    )
    plain = again.execute(context)
    assert plain["details"]["plan"]["structure"] is None
    assert plain["metrics"]["model_bytes"] == plain["metrics"]["baseline_bytes"]


def test_a_plan_that_is_not_there_fails_for_good(store, context, tmp_path):
    task = md.AutoCompressModelOperator(
        task_id="compress", model={}, code=CODE, plan=str(tmp_path / "no.json"), store=store
    )
    with pytest.raises(AirflowFailException, match=r"no\.json can't be read.*wanted: a plan\.json"):
        task.full_spec(context)


def test_a_size_that_is_no_number_fails_for_good(context):
    task = md.AutoCompressModelOperator(task_id="compress", model={}, budget=md.Budget(max_size_mb="tiny"))
    with pytest.raises(AirflowFailException, match=r"max_size_mb is no number; found: 'tiny'"):
        task.full_spec(context)


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [
        (0.5, {"max_drop": 0.5}),
        ("{{ params.drop }}", {"max_drop": "2"}),
        (md.Budget(), {"max_drop": 1.0, "max_latency_ms": None}),
        (
            md.Budget(max_drop=None, max_size_mb="1.5", max_latency_ms=3),
            {"max_drop": None, "max_latency_ms": 3, "max_size_bytes": 1_500_000},
        ),
    ],
)
def test_a_budget_reaches_the_step_as_it_takes_it(budget, wanted, context):
    with DAG("d", schedule=None):
        task = md.AutoCompressModelOperator(task_id="compress", model={}, budget=budget)
    assert rendered(task, context, drop="2")["budget"] == wanted


@pytest.mark.parametrize(
    ("method", "step", "kept"),
    [
        ("auto", "autocompress", {"budget", "objective", "recovery_epochs", "through"}),
        ("", "autocompress", {"budget", "objective", "recovery_epochs", "through"}),
        ("gradient-mean", "prune", {"method", "ratio", "recovery_epochs"}),
        ("none", "prune", {"method", "ratio", "recovery_epochs"}),
    ],
)
def test_the_form_s_method_chooses_between_the_planner_and_pruning(method, step, kept, context):
    with DAG("d", schedule=None):
        task = md.CompressModelOperator(
            task_id="compress",
            model={},
            code=CODE,
            compression=md.CompressionConfig(method="{{ params.method }}", budget=2, recovery_epochs=3),
        )
    spec = rendered(task, context, method=method)
    assert task.step_name() == step
    from_code = {"data", "metric", "fit", "loss"}
    assert set(spec) - from_code == kept
    assert spec["loss"] == "cross_entropy"
    if step == "autocompress":
        assert (spec["budget"], spec["through"]) == ({"max_drop": 2}, "structure")
