"""How many CPUs this process may use: its affinity, and the quota of its control groups, of either version."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def available_cpus(root: Path = Path("/")) -> int:
    """Count the CPUs; a quota of one and a half is one, since a second thread would spend it waiting.

    Args:
        root: where /proc and /sys are.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    mount = root / "sys/fs/cgroup"
    for version, path in _groups(root):
        base = mount if version == 2 else mount / "cpu"
        read = _quota_v2 if version == 2 else _quota_v1
        # A group is bound by its parents too. In a container its own path is often the mount itself.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            quota = read(base.joinpath(*parts[:depth]))
            if quota is not None:
                yield quota


def _groups(root: Path) -> Iterator[tuple[int, str]]:
    yield 2, "/"
    yield 1, "/"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield 2, path
        elif "cpu" in controllers.split(","):
            yield 1, path


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((group / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
