"""Measures speed and memory of a callable or a process, and the size of a file; knows nothing of what they hold."""

from __future__ import annotations

import statistics
import threading
import time
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import interleaved_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one request: process CPU time, and wall time.

    CPU time is what the request costs on any machine of this kind; wall time includes waiting for a core.
    """

    cpu_ms_p50: float
    cpu_ms_p95: float
    wall_ms_p50: float
    wall_ms_p95: float
    samples: int

    def to_json(self) -> dict[str, float]:
        """The same as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class SpeedComparison:
    """Least CPU seconds of each alternative, and how many times faster than the first it is."""

    seconds: dict[str, float]
    speedup: dict[str, float]


@dataclass
class PeakMemory:
    """The largest resident memory seen so far.

    Args:
        bytes: of the process and its children together; 0 before the first sample.
        samples: how many there were.
    """

    bytes: int = 0
    samples: int = 0


def latency(
    request: Callable[[], object], *, samples: int = 200, warmup: int = 10, max_seconds: float = 10.0
) -> Latency:
    """Call `request`, one call a sample, and report percentiles."""
    if samples < 1 or warmup < 0:
        raise InputError(
            "samples, warmup", found=(samples, warmup), wanted="at least 1 sample, 0 or more to warm up"
        )
    for _ in range(warmup):
        request()
    cpu: list[float] = []
    wall: list[float] = []
    deadline = time.monotonic() + max_seconds
    while len(cpu) < samples and (not cpu or time.monotonic() < deadline):
        wall_begin, cpu_begin = time.perf_counter(), time.process_time()
        request()
        cpu.append((time.process_time() - cpu_begin) * 1e3)
        wall.append((time.perf_counter() - wall_begin) * 1e3)
    return Latency(
        _percentile(cpu, 50), _percentile(cpu, 95), _percentile(wall, 50), _percentile(wall, 95), len(cpu)
    )


def throughput(
    request: Callable[[], object], samples_per_call: int, *, rounds: int = 15, max_seconds: float = 10.0
) -> float:
    """Samples a CPU second: the best of some rounds."""
    if samples_per_call < 1:
        raise InputError("samples_per_call", found=samples_per_call, wanted="at least 1")
    times = interleaved_seconds({"it": request}, rounds=rounds, max_seconds=max_seconds)["it"]
    return samples_per_call / min(times)


def compare_speed(
    requests: Mapping[str, Callable[[], object]], *, rounds: int = 30, max_seconds: float = 20.0
) -> SpeedComparison:
    """Measure alternatives in turns; minimum of each, and the first one's minimum divided by it."""
    if not requests:
        raise InputError("alternatives to compare", found="none", wanted="at least one")
    samples = interleaved_seconds(requests, rounds=rounds, max_seconds=max_seconds)
    least = {name: min(times) for name, times in samples.items()}
    first = next(iter(least.values()))
    return SpeedComparison(least, {name: first / seconds for name, seconds in least.items()})


@contextmanager
def peak_memory(pid: int, *, interval_seconds: float = 0.005) -> Iterator[PeakMemory]:
    """Sample the resident memory of a process and its children until the block ends.

    Peaks shorter than the interval can be missed. A process that ends meanwhile ends the sampling.
    """
    import psutil

    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess as error:
        raise InputError("process to watch", found=f"no process {pid}", wanted="a running one") from error
    peak, done = PeakMemory(), threading.Event()

    def sample() -> None:
        total = 0
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak.bytes, peak.samples = max(peak.bytes, total), peak.samples + 1

    def watch() -> None:
        while not done.wait(interval_seconds):
            try:
                sample()
            except psutil.NoSuchProcess:
                return

    sample()
    thread = threading.Thread(target=watch, name="peak-memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def compressed_size(path: Path) -> int:
    """Bytes of a file compressed by zlib at its own default, level 6: about what gzip or a container layer takes."""
    packer, size = zlib.compressobj(level=6), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            size += len(packer.compress(block))
    return size + len(packer.flush())


def _percentile(values: list[float], percent: int) -> float:
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
