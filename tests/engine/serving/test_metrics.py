"""What GET /metrics says, against what was sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from airflow_model_deploy.engine.serving import servable as reader
from airflow_model_deploy.engine.serving.metrics import Metrics
from airflow_model_deploy.engine.serving.observing import Observer
from tests.engine.serving.servables import Server, infer_body, request, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = [[0.1, -2.0, 3.0, 4.0], [5.5, 6.0, -7.25, 8.0]]


@pytest.fixture
def fresh(linear_folder: Path, tmp_path: Path) -> Iterator[Server]:
    with running(linear_folder, tmp_path) as server:
        yield server


def scrape(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = request(f"{server.url}/metrics")[1]
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    found = [v for (n, have), v in samples.items() if n == name and set(labels.items()) <= have]
    assert found, f"no series {name} {labels}"
    return sum(found)


def test_series_exist_before_anything_happens(fresh: Server) -> None:
    samples = scrape(fresh)
    for reason in (
        "queue_full",
        "queue_timeout",
        "too_large",
        "slow_request",
        "memory",
        "connections",
        "invalid",
    ):
        assert total(samples, "model_rejected_total", reason=reason) == 0
    assert total(samples, "model_request_duration_seconds_count", code="200") == 0
    for name in ("model_inputs_nan_total", "model_input_values_total", "model_input_out_of_range_total"):
        assert total(samples, name, input="x") == 0
    assert total(samples, "model_batch_size_count") == total(samples, "model_queue_seconds_count") == 0
    assert total(samples, "model_load_seconds", model="tiny", version="v1") > 0
    assert total(samples, "model_info", model="tiny", precision="fp32") == 1
    assert total(samples, "model_requests_in_flight") == 0
    assert total(samples, "process_resident_memory_bytes") > 0


def test_metrics_count_what_happened(fresh: Server) -> None:
    infer = f"{fresh.url}/v2/models/tiny/infer"
    assert request(infer, infer_body(ROWS))[0] == 200
    assert request(infer, infer_body([[None, 1, 2, 3]]))[0] == 400  # type: ignore[list-item]
    assert request(infer, b"{")[0] == 400
    head = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]
    }
    raw = json.dumps(head).encode()
    values = np.array([[np.nan, 1, np.inf, 2]], "<f4").tobytes()
    length = {"Inference-Header-Content-Length": str(len(raw))}
    assert request(infer, raw + values, length)[0] == 422
    assert request(f"{fresh.url}/v2/models/other/infer", b"{}")[0] == 404

    samples = scrape(fresh)
    count = "model_request_duration_seconds_count"
    assert [total(samples, count, code=code) for code in ("200", "400", "422")] == [1, 2, 1]
    for reason in ("input_not_finite", "invalid", "output_not_finite", "not_found"):
        assert total(samples, "model_rejected_total", reason=reason) == 1
    assert total(samples, "model_input_values_total", input="x") == 8 + 4
    assert total(samples, "model_inputs_nan_total", input="x") == 1 + 2
    assert total(samples, "model_batch_size_sum") == 3
    assert total(samples, "model_queue_seconds_count") == 2
    assert total(samples, "model_requests_in_flight") == 0


def test_values_are_counted_against_their_range_as_numpy_does(linear_folder: Path) -> None:
    metrics = Metrics(reader.load(linear_folder), 0.0)
    observer = Observer(metrics.inputs, {"x": (-1.0, 2.0)})
    x = np.random.default_rng(0).normal(scale=2, size=(50, 4)).astype(np.float32)
    x[0, 0], x[1, 1], x[2, 2], x[3] = np.nan, np.inf, -np.inf, [-1, 2, -1.0001, 2.0001]
    observer.observe({"x": x})
    plain = x.astype(np.float64).ravel().tolist()
    value = metrics.registry.get_sample_value
    assert value("model_input_values_total", {"input": "x"}) == 200
    assert value("model_inputs_nan_total", {"input": "x"}) == 3
    assert value("model_input_out_of_range_total", {"input": "x"}) == sum(v < -1.0 or v > 2.0 for v in plain)


def test_the_edges_of_objectives_are_edges_of_buckets(linear_folder: Path) -> None:
    metrics = Metrics(reader.load(linear_folder), 0.0)
    metrics.duration(200).observe(0.05)
    labels = {"model": "tiny", "version": "v1", "code": "200"}
    for edge, count in (("0.025", 0), ("0.05", 1), ("0.1", 1)):
        name = "model_request_duration_seconds_bucket"
        assert metrics.registry.get_sample_value(name, {**labels, "le": edge}) == count
