"""A sentence embedder from Hugging Face, quantized and held to gates that need no labels."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_model_deploy import (
    BuildModelOperator,
    DataSource,
    EvaluateModelOperator,
    GateConfig,
    IngestModelOperator,
    ModelCode,
    QuantizeModelOperator,
    UserFunction,
)

# [START code]
FOLDER = "/srv/models/all-MiniLM-L6-v2"
SENTENCES = ModelCode(
    data=DataSource(
        loader=UserFunction("my_texts:load", {"model": FOLDER, "sentences": "/srv/data/{split}.txt"}),
        files=("/srv/data/train.txt", "/srv/data/test.txt"),
    ),
    metric="cosine",
)
# [END code]

with DAG("embedder", schedule=None, catchup=False, max_active_runs=1):
    # [START ingest]
    ingest = IngestModelOperator(task_id="ingest", source=FOLDER, name="minilm", code=SENTENCES)
    # [END ingest]
    quantize = QuantizeModelOperator(task_id="quantize", model=ingest.output, code=SENTENCES, mode="dynamic")
    build = BuildModelOperator(task_id="build", model=quantize.output, baseline=ingest.output, code=SENTENCES)
    # [START evaluate]
    evaluate = EvaluateModelOperator(
        task_id="evaluate",
        servable=build.output,
        baseline=ingest.output,
        code=SENTENCES,
        gates=GateConfig(max_quality_drop=2.0, max_compressed_mb=25, confident=True),
    )
    # [END evaluate]
