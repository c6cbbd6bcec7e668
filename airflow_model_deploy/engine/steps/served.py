"""A servable in its real server process: its answers, its golden ones, and what they cost. Judges no quality."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import GateError
from airflow_model_deploy.engine.evaluation import compressed_size
from airflow_model_deploy.engine.models import SessionSettings, model_files, onnx_precision, read_signature
from airflow_model_deploy.engine.packaging import Servable, read_servable, write_servable
from airflow_model_deploy.engine.probing import Client, ask, load_golden, serve
from airflow_model_deploy.engine.progress import progress
from airflow_model_deploy.engine.steps.speed import cpu_latency, first_rows, speedup_at_batch

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

logger = logging.getLogger(__name__)

_REQUEST_ROWS = 64
_LATENCY_REQUESTS = 100


class Answers:
    """The servable's answers through its real server; the server runs once, whatever is asked of it."""

    def __init__(self, servable: Servable, feed: dict[str, np.ndarray], timeout_s: float) -> None:
        self._servable, self._feed, self._timeout_s = servable, feed, timeout_s
        self._outputs: dict[str, np.ndarray] | None = None
        self._measured: dict[str, Any] = {}

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the answers to the whole feed."""
        if self._outputs is None:
            if self._servable.golden is None:
                raise GateError(
                    f"the servable of {self._servable.name} has no golden requests",
                    wanted="at least 16",
                    remedy="Build it with the build step.",
                )
            self._outputs, self._measured = _asked(self._servable, self._feed, self._timeout_s)
        return self._outputs

    def measure(self, baseline: Path, scratch: Path) -> dict[str, Any]:
        """Return what the servable costs, and what the baseline's file does by the same server and requests.

        latency_ms, latency_p95_ms (wall), peak_memory_bytes and start_s are the server's; cpu_ms_p50, cpu_ms_p95,
        throughput, baseline_throughput and speedup are measured in this process, on the session's own threads.
        """
        self.outputs()
        servable = self._servable
        settings = SessionSettings.from_json(servable.session)
        original = _serve_original(baseline, servable.name, scratch)
        few = {name: array[: 2 * _REQUEST_ROWS] for name, array in self._feed.items()}
        _, original_measured = _asked(original, few, self._timeout_s)
        theirs = {
            **original_measured,
            **cpu_latency(baseline, None, self._feed),
            "compressed_bytes": _compressed(baseline),
        }
        return {
            **self._measured,
            **cpu_latency(servable.model, settings, self._feed),
            "compressed_bytes": _compressed(servable.model),
            **{f"baseline_{name}": value for name, value in theirs.items()},
            **speedup_at_batch(servable.model, settings, baseline, self._feed),
        }


def _compressed(model: Path) -> int:
    return sum(compressed_size(file) for file in model_files(model))


def _asked(
    servable: Servable, feed: dict[str, np.ndarray], timeout_s: float
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    start = time.monotonic()
    with (
        serve(server_command(servable.folder), ready_timeout_s=timeout_s) as server,
        Client(server.base_url, servable.name) as client,
    ):
        started = time.monotonic() - start
        _require_golden(client, servable)
        fixed = servable.signature.fixed_batch
        outputs = _predict(client, feed, fixed)
        latencies = _latencies(client, first_rows(feed, fixed or 1))
        measured = {
            "latency_ms": statistics.median(latencies),
            "latency_p95_ms": statistics.quantiles(latencies, n=20)[-1],
            "peak_memory_bytes": server.peak_memory_bytes(),
            "start_s": started,
        }
    return outputs, measured


def _serve_original(path: Path, name: str, folder: Path) -> Servable:
    """Make the original's fp32 file a servable with a server's default session, to be measured as one."""
    write_servable(
        folder,
        model=path,
        name=name,
        version="original",
        signature=read_signature(path),
        session=SessionSettings().to_json(),
        precision=onnx_precision(path),
        golden=None,
    )
    return read_servable(folder)


def server_command(servable: Path) -> list[str]:
    """Return the command that serves a folder with this interpreter."""
    return [sys.executable, "-P", "-m", "airflow_model_deploy.engine.serving", "--servable", str(servable)]


def _require_golden(client: Client, servable: Servable) -> None:
    if servable.golden is None:
        return
    comparison = ask(client, load_golden(servable.golden))
    logger.info("%s", comparison.summary)
    if not comparison.passed:
        raise GateError(
            "the server's answers are not the golden ones",
            found="\n".join((comparison.summary, *comparison.mismatches)),
            wanted=f"{comparison.total} of {comparison.total} within tolerance",
            remedy="Look at what changed between build and test: the CPU, ONNX Runtime, the session settings.",
        )


def _predict(client: Client, feed: dict[str, np.ndarray], fixed: int | None) -> dict[str, np.ndarray]:
    """Ask in batches; a model bound to one gets the last one filled up, and what fills it is dropped."""
    import numpy as np

    total, rows = len(next(iter(feed.values()))), fixed or _REQUEST_ROWS
    parts: list[dict[str, np.ndarray]] = []
    for start in progress(range(0, total, rows), "test requests"):
        batch = {name: array[start : start + rows] for name, array in feed.items()}
        count = min(rows, total - start)
        answer = client.infer(first_rows(batch, rows) if fixed else batch)
        parts.append({name: array[:count] for name, array in answer.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _latencies(client: Client, one: dict[str, np.ndarray]) -> list[float]:
    latencies = []
    for _ in range(_LATENCY_REQUESTS):
        start = time.perf_counter()
        client.infer(one)
        latencies.append((time.perf_counter() - start) * 1e3)
    return latencies
