"""Watches one server for a window: golden probes all along, metrics at both ends. Judges nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.monitoring.metrics_text import Scrape, parse
from airflow_model_deploy.engine.monitoring.observation import Observation, Probe, summarise
from airflow_model_deploy.engine.probing import ProbeError, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    before, start = scrape(client), clock()
    probes = probe_in_turn(
        [client], golden, window_s=window_s, interval_s=interval_s, clock=clock, sleep=sleep, tell=tell
    )
    after, ready = scrape(client), is_ready(client)
    return summarise(probes, before, after, ready, clock() - start, latency_ms, memory)


def probe_in_turn(
    clients: Sequence[Client],
    golden: GoldenSet,
    *,
    window_s: float,
    interval_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    tell: Callable[[str], None] | None = None,
) -> list[Probe]:
    """Send the golden requests to the servers in turn, until the window has passed; see `observe`."""
    if window_s < 0 or interval_s <= 0:
        raise InputError("a window of observation", found=f"{window_s} s, every {interval_s} s", wanted="> 0")
    start = clock()
    probes: list[Probe] = []
    while True:
        turn, number = clock(), len(probes)
        request = golden.requests[number % len(golden.requests)]
        probes.append(_probe(clients[number % len(clients)], request, golden, clock))
        if probes[-1].problem and tell:
            tell(probes[-1].problem)
        pause = turn + interval_s - clock()
        if clock() + max(pause, 0.0) >= start + window_s:
            break
        sleep(max(pause, 0.0))
    sleep(max(start + window_s - clock(), 0.0))
    return probes


def _probe(client: Client, request: GoldenRequest, golden: GoldenSet, clock: Callable[[], float]) -> Probe:
    start = clock()
    try:
        answer = client.infer(request.inputs)
    except (UnavailableError, ProbeError) as e:
        return Probe(None, f"{request.id}: {e}")
    latency_ms = (clock() - start) * 1000
    return Probe(latency_ms, "" if matches(request, answer, golden) else f"{request.id}: wrong answer")


def scrape(client: Client) -> Scrape | None:
    """Return a server's metrics; None where they can't be read."""
    try:
        found = parse(client.metrics_text())
    except (UnavailableError, ProbeError, InputError):
        return None
    return found


def is_ready(client: Client) -> bool:
    """Return whether a server calls itself ready."""
    try:
        return client.ready()
    except UnavailableError:
        return False
