"""Watches one server for a window: golden probes all along, metrics at both ends. Judges nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.monitoring.metrics_text import Scrape, parse
from airflow_model_deploy.engine.monitoring.observation import Observation, Probe, summarise
from airflow_model_deploy.engine.probing import ProbeError, matches

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_model_deploy.engine.probing import Client, GoldenRequest, GoldenSet


def observe(
    client: Client,
    golden: GoldenSet,
    *,
    window_s: float,
    interval_s: float,
    latency_ms: float,
    memory: Callable[[], int] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    tell: Callable[[str], None] | None = None,
) -> Observation:
    """Send golden requests in turn, one every `interval_s`, for `window_s`; at least one is sent.

    A server that doesn't answer is an observation, not an error.

    Args:
        client: of the server's own address (behind a balancer, the two scrapes may be of two processes).
        golden: what to send, and what has to come back.
        window_s: how long to watch.
        interval_s: from the start of one probe to the start of the next.
        latency_ms: the objective; exact where the server's histogram has a bucket there.
        memory: measures the server's memory; default: what it reports itself.
        clock: monotonic seconds.
        sleep: waits that many seconds.
        tell: takes a line about every probe that went wrong.
    """
    if window_s < 0 or interval_s <= 0:
        raise InputError("a window of observation", found=f"{window_s} s, every {interval_s} s", wanted="> 0")
    before, start = _scrape(client), clock()
    probes: list[Probe] = []
    while True:
        turn = clock()
        probes.append(_probe(client, golden.requests[len(probes) % len(golden.requests)], golden, clock))
        if probes[-1].problem and tell:
            tell(probes[-1].problem)
        pause = turn + interval_s - clock()
        if clock() + max(pause, 0.0) >= start + window_s:
            break
        sleep(max(pause, 0.0))
    sleep(max(start + window_s - clock(), 0.0))
    after, ready = _scrape(client), _ready(client)
    return summarise(probes, before, after, ready, clock() - start, latency_ms, memory)


def _probe(client: Client, request: GoldenRequest, golden: GoldenSet, clock: Callable[[], float]) -> Probe:
    start = clock()
    try:
        answer = client.infer(request.inputs)
    except (UnavailableError, ProbeError) as e:
        return Probe(None, f"{request.id}: {e}")
    latency_ms = (clock() - start) * 1000
    return Probe(latency_ms, "" if matches(request, answer, golden) else f"{request.id}: wrong answer")


def _scrape(client: Client) -> Scrape | None:
    try:
        scrape = parse(client.metrics_text())
    except (UnavailableError, ProbeError, InputError):
        return None
    return scrape


def _ready(client: Client) -> bool:
    try:
        return client.ready()
    except UnavailableError:
        return False
