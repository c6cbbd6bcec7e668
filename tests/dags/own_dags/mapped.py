"""A Dag of somebody's own: the same operators over three models, by dynamic task mapping."""

from __future__ import annotations

from airflow.sdk import DAG

import airflow_model_deploy as md

MODELS = {
    f"moons-{width}": md.ModelCode(
        factory=md.UserFunction("toy_model:build", {"width": width}),
        fit=md.UserFunction("toy_model:fit"),
        data=md.DataSource(loader=md.UserFunction("toy_data:load"), version="2026-11"),
    )
    for width in (8, 16, 24)
}

with DAG("mapped", schedule=None, catchup=False):
    train = md.TrainModelOperator.partial(task_id="train", code=MODELS, epochs=5).expand(name=sorted(MODELS))
    md.QuantizeModelOperator.partial(task_id="quantize", code=MODELS["moons-8"], mode="dynamic").expand(
        model=train.output
    )
