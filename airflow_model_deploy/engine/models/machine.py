"""Knows which kind of CPU this is; never which machine."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Flags that change which kernels run, under the names that Linux gives them.
_FLAGS = (
    "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclass(frozen=True)
class CpuFingerprint:
    """The kind of CPU that a measurement holds for.

    Args:
        architecture: "x86_64", "aarch64".
        model: the maker's name of the CPU.
        flags: those instruction sets, of the ones that matter to inference, that it has.
        logical_cpus: how many this process may use.
    """

    architecture: str
    model: str
    flags: tuple[str, ...]
    logical_cpus: int

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "flags": list(self.flags)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> CpuFingerprint:
        """The inverse of `to_json`."""
        return cls(value["architecture"], value["model"], tuple(value["flags"]), value["logical_cpus"])

    def same_kernels(self, other: CpuFingerprint) -> bool:
        """True where a file optimized for one CPU suits the other."""
        return (self.architecture, self.flags) == (other.architecture, other.flags)


def cpu_fingerprint() -> CpuFingerprint:
    """The CPU of this process, without host name or serial numbers."""
    info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip().lower(), value.strip())
    found = set((fields.get("flags") or fields.get("features") or "").split())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return CpuFingerprint(
        architecture=platform.machine(),
        model=fields.get("model name") or platform.processor() or "unknown",
        flags=tuple(flag for flag in _FLAGS if flag in found),
        logical_cpus=usable,
    )
