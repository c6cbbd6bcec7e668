from __future__ import annotations

import dataclasses
import os
import random
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    CpuFingerprint,
    cpu_fingerprint,
    denormals_as_zero,
    interleaved_seconds,
    reproducible,
)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_the_same_seed_gives_the_same_numbers_and_nothing_leaks() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = draw()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    threads = torch.get_num_threads()
    with reproducible(3, threads=threads + 1):
        first = draw()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == threads + 1
    with reproducible(3):
        assert draw() == first
    assert draw() == expected
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.parametrize(("seed", "threads"), [(-1, 1), (2**32, 1), (0, 0)])
def test_seeds_and_threads_that_cannot_be(seed: int, threads: int) -> None:
    with pytest.raises(InputError), reproducible(seed, threads):
        pass


def test_the_fingerprint_names_the_kind_of_cpu_and_not_the_machine() -> None:
    found = cpu_fingerprint()
    assert CpuFingerprint.from_json(found.to_json()) == found
    assert found.logical_cpus == len(os.sched_getaffinity(0))
    assert socket.gethostname() not in str(found.to_json())
    assert found.same_kernels(dataclasses.replace(found, logical_cpus=99, model="a sibling"))
    assert not found.same_kernels(dataclasses.replace(found, flags=()))


def test_interleaved_times_tell_slow_from_fast() -> None:
    order: list[str] = []
    runs = {
        "fast": lambda: order.append("fast"),
        "slow": lambda: (order.append("slow"), sum(range(20_000))),
    }
    samples = interleaved_seconds(runs, rounds=6, sample_seconds=0)
    assert min(samples["slow"]) > 3 * min(samples["fast"])
    assert [len(times) for times in samples.values()] == [6, 6]
    assert order[-4:] == ["fast", "slow", "slow", "fast"]  # the order turns round every time


def test_measuring_stops_in_time() -> None:
    assert (
        len(interleaved_seconds({"a": lambda: sum(range(10_000))}, rounds=10_000, max_seconds=0.05)["a"])
        < 1000
    )


@pytest.mark.parametrize("room", ["models", "compression", "evaluation"])
def test_importing_a_room_imports_nothing_heavy(room: str) -> None:
    heavy = ["torch", "onnx", "onnxruntime", "numpy", "safetensors", "psutil", "torch_pruning"]
    code = f"import sys, airflow_model_deploy.engine.{room}; print([m for m in {heavy} if m in sys.modules])"
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "[]\n"
    )


def test_denormals_are_zero_inside_and_numbers_again_outside():
    smallest = sys.float_info.min
    with denormals_as_zero():
        with denormals_as_zero():
            pass
        assert smallest / 2 == 0.0
    assert smallest / 2 > 0.0
