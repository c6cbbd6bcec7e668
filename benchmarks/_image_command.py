"""`model-deploy image` as a user runs it, in a process of its own, with what it cost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks._steps import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Seconds: of the CPU by the process and its children, and on the wall."""

    cpu: float
    wall: float


def image(
    kind: str, *options: str | Path, environment: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Cost]:
    """Build an image by `oci`; returns what the command prints and what it cost."""
    program = [sys.executable, "-m", "airflow_model_deploy.engine.cli", "image", kind, "--backend", "oci"]
    printed, cost = timed([*program, *map(str, options)], environment)
    value: dict[str, Any] = json.loads(printed)
    return value, cost


def timed(
    argv: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[str, Cost]:
    """Run a command; returns its output and what it cost.

    Raises:
        RuntimeError: it failed.
    """
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
    )
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        raise RuntimeError(f"{argv[:6]} ended with {done.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, Cost(cpu, wall)
