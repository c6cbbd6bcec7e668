"""The last gate before traffic, for an image: the very image, confined as it will be, answers its golden requests.

Fails closed: whatever keeps the answer from being known is a refusal. It has no network: the questions reach it
through the engine.
"""

from __future__ import annotations

import re
import statistics
import time
from contextlib import closing
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers import connect, ensure_image, find_image, run_inside, tunnel
from airflow_model_deploy.engine.errors import GateError, InputError, UnavailableError
from airflow_model_deploy.engine.packaging.blessing_container import BlessingContainer
from airflow_model_deploy.engine.packaging.gates import (
    REMEDY,
    blessed,
    measure_latencies,
    require_latency,
    require_match,
    require_memory,
)
from airflow_model_deploy.engine.packaging.servable import read_servable
from airflow_model_deploy.engine.probing import Client, ProbeError, ask, load_golden

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from docker import APIClient

    from airflow_model_deploy.engine.containers import Credentials, Engine, Limits
    from airflow_model_deploy.engine.packaging.release import Blessing
    from airflow_model_deploy.engine.packaging.servable import Servable
    from airflow_model_deploy.engine.probing import Comparison, GoldenSet

_POLL_S = 0.2
_LEAST_TIMEOUT_S = 10.0
_OVERHEAD_SAMPLES = 11
_PEAK = re.compile(rb"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_INFO = re.compile(r'^model_info\{[^}]*digest="([^"]*)"', re.MULTILINE)
_READ_STATUS = ("python3", "-S", "-c", "print(open('/proc/1/status').read())")


def bless_image(
    engine: Engine,
    image: str,
    servable: Path,
    *,
    limits: Limits,
    log: Callable[[str], None],
    credentials: Sequence[Credentials] = (),
    memory_limit_bytes: int | None = None,
    latency_ms: float | None = None,
    latency_share: float = 0.95,
    ready_timeout_s: float = 60.0,
) -> Blessing:
    """Run an image under its limits, ask every golden request, compare with both recorded answers.

    Read-only, without capabilities or a network, as the image's own user, who must not be root. The container is
    gone afterwards, and its server ends by itself should this process be killed.

    Args:
        engine: where it runs.
        image: "repository@sha256:..", or the id of one that only this engine has.
        servable: the folder that the image was made from: its golden requests and its digest are asked for.
        limits: what the container may use; memory beyond them ends the server.
        log: takes the progress, line by line.
        credentials: for the image's registry.
        memory_limit_bytes: bound of the server's peak memory, loading included; None: only what `limits` allow.
        latency_ms: bound of `latency_share` of the requests, asked one at a time; None to only measure. The least
            time that the way through the engine took is left out, and is in the log.
        latency_share: see `latency_ms`.
        ready_timeout_s: bound for loading and warming.

    Raises:
        GateError: it doesn't start, ends, runs out of memory, runs as root, serves something else, an answer is
            off (with the differences), or a limit is passed.
        UnavailableError: no engine or registry answers, or the server isn't ready in time.
        InputError: no such image, or `image` isn't named by its content.
    """
    digest = _digest_of(image)
    read = read_servable(servable)
    if read.golden is None:
        raise GateError(f"image {image} can't be blessed", found="no golden requests", wanted="golden.json")
    golden = load_golden(read.golden)
    with closing(connect(engine)) as client:
        ensure_image(client, image, credentials, log=log)
        _require_plain_user(client, image)
        log(f"blessing {image} with {limits.memory_bytes / 2**20:.0f} MiB and {limits.cpus:g} CPUs")
        with BlessingContainer(client, image, limits) as container:
            timeout_s = max(_LEAST_TIMEOUT_S, ready_timeout_s)
            with (
                tunnel(client, container.id, wait_s=ready_timeout_s, log=log) as url,
                Client(url, read.name, timeout_s) as asker,
            ):
                _wait_until_ready(asker, container, ready_timeout_s, log)
                comparison = ask(asker, golden)
                measured = _judge(asker, container, comparison, golden, read)
                overhead = _overhead(asker)
                peak = _peak_memory(client, container)
    latencies = [max(0.0, latency - overhead) for latency in measured]
    log(
        f"golden requests: {comparison.summary}; median latency {statistics.median(latencies):.3g} ms, without"
        f" {overhead:.2g} ms on the way through the engine; peak memory {peak / 2**20:.0f} MiB"
    )
    require_memory(peak, memory_limit_bytes, f"image {image}")
    require_latency(latencies, latency_ms, latency_share, f"image {image}")
    return blessed(comparison, digest, peak, latencies)


def _digest_of(image: str) -> str:
    digest = image.rpartition("@")[2]
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise InputError(
            "the image to bless",
            found=image,
            wanted="repository@sha256:.., or its id: what a tag names may change before it is deployed",
        )
    return digest


def _require_plain_user(client: APIClient, image: str) -> None:
    found = find_image(client, image)
    user = str((found or {}).get("Config", {}).get("User") or "root")
    if user.partition(":")[0] in ("root", "0"):
        raise GateError(f"image {image} runs as root", found=f"USER {user}", wanted="another user")


def _wait_until_ready(
    asker: Client, container: BlessingContainer, timeout_s: float, log: Callable[[str], None]
) -> None:
    start = time.monotonic()
    while True:
        try:
            if asker.ready():  # the tunnel itself waits inside until somebody listens
                log(f"ready after {time.monotonic() - start:.1f} s")
                return
        except UnavailableError:
            container.require_alive()
        if time.monotonic() - start > timeout_s:
            raise UnavailableError(
                f"image {container.image} was not ready in time",
                found=f"{timeout_s:g} s",
                wanted="ready",
                remedy=f"Its last words: {container.last_words()}",
            )
        time.sleep(_POLL_S)


def _judge(
    asker: Client, container: BlessingContainer, comparison: Comparison, golden: GoldenSet, read: Servable
) -> list[float]:
    """Refuse wrong answers and another servable; returns latencies."""
    what = f"image {container.image}"
    if not comparison.passed:
        container.require_alive()
    require_match(comparison, what, container.last_words())
    try:
        served = _INFO.findall(asker.metrics_text())
        latencies = measure_latencies(asker, golden)
    except (ProbeError, UnavailableError) as e:
        container.require_alive()
        raise GateError(f"{what} stopped answering", found=str(e), remedy=REMEDY) from e
    if served != [read.digest]:
        raise GateError(
            f"{what} serves something else",
            found=f"model_info says {', '.join(served) or 'nothing'}",
            wanted=read.digest,
            remedy=f"{REMEDY}; build the image from this servable",
        )
    return latencies


def _overhead(asker: Client) -> float:
    """The least milliseconds of a question that costs the server nothing: what the way there and back takes.

    The least, not the usual: what is left out of a latency must not be this minute's bad luck.
    """
    times = []
    for _ in range(_OVERHEAD_SAMPLES):
        start = time.perf_counter()
        asker.live()
        times.append((time.perf_counter() - start) * 1000)
    return min(times)


def _peak_memory(client: APIClient, container: BlessingContainer) -> int:
    """The most memory resident in the server.

    Of the process, as on a host: what the engine counts for a container holds the cache of every file it has read,
    the model's above all, and newer kernels tell no peak.
    """
    result = run_inside(client, container.id, _READ_STATUS)
    found = _PEAK.search(result.stdout)
    if found is None:
        container.require_alive()
        raise GateError(
            f"the memory of image {container.image} can't be read",
            found=result.stderr or f"exit code {result.exit_code}",
            wanted="VmHWM in /proc/1/status",
        )
    return int(found.group(1)) * 1024
