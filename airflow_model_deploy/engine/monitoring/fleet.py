"""Watches all servers of one service for a window: golden probes in turn, the counts of every one. Judges nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring.observation import RESIDENT, Observation
from airflow_model_deploy.engine.monitoring.watch import is_ready, probe_in_turn, scrape
from airflow_model_deploy.engine.monitoring.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from airflow_model_deploy.engine.monitoring.counts import Counts
    from airflow_model_deploy.engine.monitoring.metrics_text import Scrape
    from airflow_model_deploy.engine.probing import Client, GoldenSet


def observe_fleet(
    clients: Mapping[str, Client],
    golden: GoldenSet,
    *,
    there: Callable[[], Collection[str]],
    restarts: Callable[[], int],
    window_s: float,
    interval_s: float,
    latency_ms: float,
    tell: Callable[[str], None] | None = None,
) -> Observation:
    """Watch servers that carry one service together; see `observe`.

    Args:
        clients: of each server, by its name; one or more.
        golden: what to send, and what has to come back.
        there: which of them are still there; one that was taken away meanwhile isn't asked whether it is ready.
        restarts: how often the servers have been restarted until now.
        window_s: how long to watch.
        interval_s: from the start of one probe to the start of the next.
        latency_ms: the objective.
        tell: takes a line about every probe that went wrong.
    """
    if not clients:
        raise InputError("a window of observation", found="no server", wanted="one or more")
    last: dict[str, Scrape | None] = {}

    def read() -> Mapping[str, Scrape | None]:
        last.update({name: scrape(client) for name, client in clients.items()})
        return last

    window = Window(read, latency_ms=latency_ms)
    window.start()
    before, start = restarts(), time.monotonic()
    probes = probe_in_turn(
        list(clients.values()), golden, window_s=window_s, interval_s=interval_s, tell=tell
    )
    counts = window.counts()
    known = not counts.unknown and counts.requests is not None
    over, exact = _over(counts)
    latencies = tuple(probe.latency_ms for probe in probes if probe.latency_ms is not None)
    if over is None and latencies:
        over = sum(one > latency_ms for one in latencies) / len(latencies)
    memory = [size for one in last.values() if one and (size := one.gauge(RESIDENT)) is not None]
    return Observation(
        window_s=time.monotonic() - start,
        probes_sent=len(probes),
        probes_answered=len(latencies),
        probes_wrong=sum(probe.latency_ms is not None and bool(probe.problem) for probe in probes),
        last_probe_answered=probes[-1].latency_ms is not None,
        probe_latencies_ms=latencies,
        ready=_all_ready(clients, there()),
        metrics_readable=known,
        requests=counts.requests if known else None,
        errors=counts.errors if known else None,
        over_objective=over,
        over_objective_source="histogram" if exact else "probes" if latencies else None,
        reset_seen=restarts() > before,
        memory_bytes=int(max(memory)) if memory else None,
        wrong=tuple(probe.problem for probe in probes if probe.problem)[:10],
    )


def nothing_seen() -> Observation:
    """Return the observation of a service that has no server to ask."""
    return Observation(
        window_s=0.0,
        probes_sent=0,
        probes_answered=0,
        probes_wrong=0,
        last_probe_answered=False,
        probe_latencies_ms=(),
        ready=False,
        metrics_readable=False,
    )


def _all_ready(clients: Mapping[str, Client], there: Collection[str]) -> bool:
    left = [client for name, client in clients.items() if name in there]
    return bool(there) and all(map(is_ready, left))


def _over(counts: Counts) -> tuple[float | None, bool]:
    """Return the share over the objective, where the histograms tell it exactly."""
    if not counts.timed or counts.slow is None or counts.slow != counts.slow_most:
        return None, False
    return counts.slow / counts.timed, True
