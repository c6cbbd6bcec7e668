"""A Dag of somebody's own: it trains in its own way and takes three operators for the rest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from airflow.sdk import DAG, task

import airflow_model_deploy as md

CODE = md.ModelCode(
    factory=md.UserFunction("toy_model:build"),
    data=md.DataSource(loader=md.UserFunction("toy_data:load"), version="2026-11"),
)
SCRIPT = """
import sys, torch
from safetensors.torch import save_file
import toy_data, toy_model
model = toy_model.build()
inputs, targets = toy_data.load("train")
toy_model.fit(model, inputs, targets, epochs=60, progress=lambda items, label: items)
save_file(model.state_dict(), sys.argv[1])
"""

with DAG("own_training", schedule=None, catchup=False):

    @task
    def train_as_we_always_did() -> str:
        target = Path(os.environ["OWN_DAGS_OUTPUT"]) / "own.safetensors"
        subprocess.run(
            [os.environ["ENGINE_PYTHON"], "-c", SCRIPT, str(target)],
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        return str(target)

    ingest = md.IngestModelOperator(
        task_id="ingest", source=train_as_we_always_did(), name="own-training", code=CODE
    )
    quantize = md.QuantizeModelOperator(task_id="quantize", model=ingest.output, code=CODE, mode="dynamic")
    md.BuildModelOperator(task_id="build", model=quantize.output, baseline=ingest.output, code=CODE)
