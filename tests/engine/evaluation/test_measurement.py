from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation import compare_speed, latency, peak_memory, throughput

if TYPE_CHECKING:
    from collections.abc import Iterator


def busy(count: int) -> int:
    return sum(range(count))


def test_waiting_costs_wall_time_and_no_cpu_time() -> None:
    # In a process of its own: other tests of this one have left threads that may be busy.
    code = (
        "import json, time; from airflow_model_deploy.engine.evaluation import latency; "
        "print(json.dumps(latency(lambda: time.sleep(0.01), samples=10, warmup=1).to_json()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    found = json.loads(done.stdout)
    assert found["samples"] == 10
    assert found["wall_ms_p95"] >= found["wall_ms_p50"] >= 10
    assert found["cpu_ms_p50"] < 5
    assert latency(lambda: time.sleep(0.01), samples=1000, max_seconds=0.1).samples < 20


def test_throughput_grows_with_the_samples_of_a_call() -> None:
    one, eight = throughput(lambda: busy(50_000), 1), throughput(lambda: busy(50_000), 8)
    assert 4 < eight / one < 16


def test_speed_is_compared_with_the_first() -> None:
    found = compare_speed({"slow": lambda: busy(80_000), "fast": lambda: busy(20_000)}, rounds=10)
    assert found.speedup["slow"] == 1
    assert 2 < found.speedup["fast"] < 8
    assert found.seconds["fast"] < found.seconds["slow"]


@pytest.fixture
def hungry() -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes 150 MB, in a child of its own, for a moment when told to."""
    child = "b = bytearray(150_000_000); b[::4096] = b'x' * len(b[::4096]); import time; time.sleep(0.3)"
    code = f"import subprocess, sys; sys.stdin.read(1); subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def test_peak_memory_counts_children_and_survives_the_end(hungry: subprocess.Popen[bytes]) -> None:
    with peak_memory(hungry.pid) as peak:
        before = peak.bytes
        hungry.communicate(b"x")
    assert before > 0
    assert peak.bytes - before > 150_000_000
    assert peak.samples > 10


def test_a_process_that_is_not_there() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(InputError, match=f"no process {process.pid}"), peak_memory(process.pid):
        pass
    with peak_memory(os.getpid()) as peak:
        pass
    assert peak.bytes > 0


def test_arguments_that_cannot_be() -> None:
    with pytest.raises(InputError):
        latency(lambda: None, samples=0)
    with pytest.raises(InputError):
        throughput(lambda: None, 0)
    with pytest.raises(InputError):
        compare_speed({})
