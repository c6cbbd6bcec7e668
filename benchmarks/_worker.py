"""Holds one ONNX file in one session and times it when told to: a process of its own for every contestant.

Needs ONNX Runtime and numpy alone, so that it runs in any contestant's venv. A process of its own, because ONNX
Runtime's way with denormal numbers is set by the first session of a process, for all of it.

Reads lines of JSON: {"feed": path, "calls": n} is answered with the least CPU seconds of a call, {"feed": path,
"target": path, "batch": n} with the outputs written, each by name.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

_SECONDS = 0.02  # a look lasts at least as long
_LEVELS = {"disable": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}


def session(path: str, settings: dict[str, Any]) -> ort.InferenceSession:
    """Load a file; {} are ONNX Runtime's own defaults on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    level = settings.get("graph_optimization_level", "all")
    if level != "all":
        options.graph_optimization_level = getattr(
            ort.GraphOptimizationLevel, _LEVELS.get(level, "ORT_ENABLE_LAYOUT")
        )
    if settings.get("denormals_as_zero"):
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    disabled = settings.get("disabled_optimizers") or None
    return ort.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )


def read(path: str) -> dict[str, np.ndarray]:
    """Read arrays by name."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


class Worker:
    """One session, and the feeds it has seen."""

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self.session = session(path, settings)
        self.names = [output.name for output in self.session.get_outputs()]
        self.feeds: dict[str, dict[str, np.ndarray]] = {}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what a line asks for."""
        if asked["feed"] not in self.feeds:
            self.feeds[asked["feed"]] = read(asked["feed"])
        feed = self.feeds[asked["feed"]]
        if "target" in asked:
            np.savez(asked["target"], **self.outputs(feed, asked["batch"]))
            return {"written": asked["target"]}
        return {"seconds": self.least(feed, asked["calls"])}

    def outputs(self, feed: dict[str, np.ndarray], batch: int) -> dict[str, Any]:
        """The outputs of all samples."""
        count = len(next(iter(feed.values())))
        parts = [
            self.session.run(None, {name: array[i : i + batch] for name, array in feed.items()})
            for i in range(0, count, batch)
        ]
        return {
            name: np.concatenate(rows)
            for name, rows in zip(self.names, zip(*parts, strict=True), strict=True)
        }

    def least(self, feed: dict[str, np.ndarray], calls: int) -> float:
        """The least CPU seconds of a call, after one that warms up; of more calls where they are short."""
        self.session.run(None, feed)
        found: list[float] = []
        while len(found) < calls or sum(found) < _SECONDS:
            begin = time.process_time()
            self.session.run(None, feed)
            found.append(time.process_time() - begin)
        return min(found)


def main() -> None:
    """Load what the arguments name, then answer lines until they end."""
    worker = Worker(sys.argv[1], json.loads(sys.argv[2]))
    versions = {"onnxruntime": ort.__version__, "numpy": np.__version__}
    print(json.dumps({"ready": True, "bytes": Path(sys.argv[1]).stat().st_size, **versions}), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
