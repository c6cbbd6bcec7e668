from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring import judge, observe
from airflow_model_deploy.engine.packaging import Objectives
from airflow_model_deploy.engine.probing import Client, GoldenSet, Tolerance, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.served import Served

GOALS = Objectives(latency_ms=1000.0, min_requests=10)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, "affine", timeout_s=5) as client:
        yield client


def test_a_server_that_works_is_observed_and_healthy(served: Served, client: Client) -> None:
    seen = observe(
        client,
        served.golden,
        window_s=0.6,
        interval_s=0.03,
        latency_ms=1000,
        memory=served.process.peak_memory_bytes,
    )
    assert seen.probes_sent == seen.probes_answered == seen.requests
    assert seen.probes_sent >= 10
    assert (seen.probes_wrong, seen.errors, seen.nan_inputs, seen.reset_seen) == (0, 0, 0, False)
    assert seen.over_objective_source == "histogram"  # 1 s is a bucket of the server's
    assert seen.memory_bytes is not None
    assert seen.memory_bytes > 10_000_000
    assert 0.6 <= seen.window_s < 3
    verdict = judge(seen, GOALS)
    assert verdict.status == "healthy", verdict


def test_an_objective_between_buckets_is_timed_by_the_probes(served: Served, client: Client) -> None:
    seen = observe(client, served.golden, window_s=0.2, interval_s=0.05, latency_ms=777)
    assert (seen.over_objective, seen.over_objective_source) == (0.0, "probes")


def test_requests_are_counted_within_the_window_only(served: Served, client: Client) -> None:
    for request in served.golden.requests:
        client.infer(request.inputs)
    seen = observe(client, served.golden, window_s=0, interval_s=1, latency_ms=1000)
    assert (seen.probes_sent, seen.requests) == (1, 1)
    assert judge(seen, GOALS).status == "inconclusive"


def test_wrong_answers_are_failing(served: Served, client: Client) -> None:
    strict = {"y": Tolerance(0.0, 0.0, "exact")}
    requests = tuple(
        replace(r, original={"y": r.original["y"] + 1}, built={"y": r.built["y"] + 1})
        for r in served.golden.requests
    )
    told: list[str] = []
    seen = observe(
        client,
        GoldenSet(requests, {"original": strict, "built": strict}),
        window_s=0.3,
        interval_s=0.02,
        latency_ms=1000,
        tell=told.append,
    )
    assert seen.probes_wrong == seen.probes_answered == len(told)
    assert "golden-000: wrong answer" in seen.wrong[0]
    assert judge(seen, GOALS).status == "failing"


def test_a_server_that_dies_in_the_window_is_failing(command: list[str], golden: GoldenSet) -> None:
    with serve(command, ready_timeout_s=60) as process, Client(process.base_url, "affine") as client:
        slept = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                os.kill(process.pid, signal.SIGKILL)
                time.sleep(0.2)
            time.sleep(seconds)

        seen = observe(client, golden, window_s=0.8, interval_s=0.05, latency_ms=1000, sleep=sleep)
    assert 0 < seen.probes_answered < seen.probes_sent
    assert (seen.ready, seen.last_probe_answered, seen.metrics_readable) == (False, False, False)
    assert judge(seen, GOALS).status == "failing"


def test_a_server_that_was_replaced_in_the_window_is_degraded(command: list[str], golden: GoldenSet) -> None:
    """Same port, another process: only the metrics tell."""
    with serve(command, ready_timeout_s=60) as old:
        port = old.base_url.rsplit(":", 1)[1]
        with Client(old.base_url, "affine") as client:
            client.infer(golden.requests[0].inputs)
        slept: list[float] = []
        replaced = serve([*command, "--port", port], ready_timeout_s=60)

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 5:
                os.kill(old.pid, signal.SIGKILL)
                time.sleep(0.2)
                replaced.__enter__()
            time.sleep(seconds)

        try:
            with Client(old.base_url, "affine") as client:
                seen = observe(client, golden, window_s=3, interval_s=0.05, latency_ms=1000, sleep=sleep)
        finally:
            if len(slept) >= 5:
                replaced.__exit__(None, None, None)
    assert seen.ready
    assert seen.reset_seen
    assert judge(seen, GOALS).status == "degraded", judge(seen, GOALS)


def test_nobody_there_is_failing_not_an_error(golden: GoldenSet) -> None:
    with Client("http://127.0.0.1:9", "affine", timeout_s=1) as client:
        seen = observe(client, golden, window_s=0.1, interval_s=0.05, latency_ms=1000)
    assert (seen.probes_answered, seen.requests, seen.over_objective) == (0, None, None)
    assert judge(seen, GOALS).status == "failing"


def test_probes_keep_their_pace_by_the_clock_given(served: Served, client: Client) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    seen = observe(
        client,
        served.golden,
        window_s=60,
        interval_s=5,
        latency_ms=1000,
        clock=lambda: now[0],
        sleep=sleep,
    )
    assert (seen.probes_sent, seen.window_s) == (12, 60)


def test_an_interval_of_nothing_is_refused(served: Served, client: Client) -> None:
    with pytest.raises(InputError):
        observe(client, served.golden, window_s=1, interval_s=0, latency_ms=1000)
