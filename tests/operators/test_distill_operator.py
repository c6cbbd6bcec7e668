from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowFailException

import airflow_model_deploy as md

CODE = md.ModelCode(
    factory=md.UserFunction("toy_model:build", {"width": 64}),
    fit=md.UserFunction("toy_model:fit"),
    data=md.DataSource(md.UserFunction("toy_data:load"), version="1"),
    loss="cross_entropy",
)
STUDENT = md.UserFunction("toy_student:build", {"width": 16})


@pytest.fixture
def context():
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)
    return {"ti": ti, "outlet_events": {}}


@pytest.fixture
def store(tmp_path):
    return f"file://{tmp_path}/store"


@pytest.fixture
def trained(user_code, store, context):
    task = md.TrainModelOperator(task_id="train", code=CODE, name="toy", epochs=30, store=store)
    return task.execute(context)


def test_a_student_is_distilled_and_goes_on_learning_as_a_form_asks(trained, store, context):
    with DAG("d", schedule=None, params={"temperature": Param(4), "kind": Param("logits")}):
        task = md.DistillModelOperator(
            task_id="distill",
            model=trained,
            student=STUDENT,
            code={"toy": CODE},
            name="toy",
            distillation=md.DistillationConfig(
                kind="{{ params.kind }}",
                temperature="{{ params.temperature }}",
                hidden={"layers.1": "layers.1"},
            ),
            epochs="2",
            learning_rate="0.01",
            store=store,
        )
    context["params"] = {"temperature": 4, "kind": "logits"}
    task.render_template_fields(context)
    result = task.execute(context)
    assert (result["step"], result["name"]) == ("distill", "toy")
    assert result["metrics"]["parameters"] < result["metrics"]["teacher_parameters"] / 10
    again = md.DistillModelOperator(
        task_id="again", model=trained, student_model=result, code=CODE, epochs=1, store=store
    ).execute(context)
    assert again["metrics"]["parameters"] == result["metrics"]["parameters"]
    assert again["artifact"] != result["artifact"]


def test_a_pruned_model_learns_from_what_it_was(trained, store, context):
    result = md.PruneModelOperator(
        task_id="prune",
        model=trained,
        code=CODE,
        method="magnitude-ratio",
        ratio=0.8,
        recovery_epochs=5,
        recovery_learning_rate=0.01,
        distillation=md.DistillationConfig(kind="logits", temperature=3),
        store=store,
    ).execute(context)
    assert result["details"]["recovery"] == "distillation"
    assert result["metrics"]["quality"] > result["details"]["quality_before_recovery"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distillation": md.DistillationConfig(kind="magic")}, "distillation.kind = 'magic'"),
        ({"distillation": md.DistillationConfig(temperature=0)}, "distillation.temperature = 0"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast'"),
        ({"epochs": 0}, "epochs = 0"),
        ({"student": md.UserFunction("no_such_module:build")}, "no_such_module"),
    ],
)
def test_a_wrong_argument_fails_for_good_before_anything_starts(
    arguments, message, store, context, user_code
):
    somewhere = {"uri": f"{store}/artifacts/sha256-{'0' * 64}", "digest": f"sha256:{'0' * 64}"}
    task = md.DistillModelOperator(
        **{
            "task_id": "distill",
            "model": somewhere,
            "student": STUDENT,
            "code": CODE,
            "store": store,
            **arguments,
        }
    )
    with pytest.raises(AirflowFailException, match=message):
        task.execute(context)
