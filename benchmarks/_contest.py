"""Times ONNX files against each other: a process each, in turns, the least CPU time counts."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from benchmarks import _samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

_WORKER = Path(__file__).with_name("_worker.py")
_ROUNDS, _CALLS = 12, 6
# What a peer's file is tried with; the faster one counts. Without the fusion that slows transformers on some CPUs.
BEST = (
    {"denormals_as_zero": True},
    {"denormals_as_zero": True, "disabled_optimizers": ["SkipLayerNormFusion"]},
)


@dataclass(frozen=True)
class Contestant:
    """An ONNX file and how it is served.

    Args:
        path: the file.
        settings: one or more of them, of which the fastest counts; ({},): ONNX Runtime's defaults.
        python: the interpreter of its venv; ours by default.
    """

    path: Path
    settings: tuple[dict[str, Any], ...] = BEST
    python: Path = field(default=Path(sys.executable))


class _Process:
    """A worker."""

    def __init__(self, contestant: Contestant, settings: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [str(contestant.python), str(_WORKER), str(contestant.path), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._line()

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Send a line, return the answer."""
        stdin = cast("IO[str]", self.process.stdin)
        stdin.write(json.dumps(asked) + "\n")
        stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        line = cast("IO[str]", self.process.stdout).readline()
        if not line:
            raise RuntimeError(f"a worker ended with {self.process.wait()}")
        value: dict[str, Any] = json.loads(line)
        return value

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.communicate()


class Contest:
    """Running workers of all contestants."""

    def __init__(self, workers: Mapping[str, list[_Process]], folder: Path, rounds: int) -> None:
        self.workers, self.folder, self.rounds = workers, folder, rounds

    def seconds(self, feed: Path) -> dict[str, float]:
        """The least CPU seconds of a call, by contestant, each in its best settings."""
        listed = [(name, one) for name, processes in self.workers.items() for one in processes]
        times: dict[str, list[float]] = {name: [] for name in self.workers}
        for turn in range(self.rounds):
            for name, one in listed if turn % 2 == 0 else reversed(listed):
                times[name].append(one.ask(feed=str(feed), calls=_CALLS)["seconds"])
        return {name: min(found) for name, found in times.items()}

    def outputs(self, name: str, feed: Path, batch: int) -> np.ndarray:
        """A contestant's first output for all samples, computed as it is served."""
        target = self.folder / "outputs.npz"
        self.workers[name][0].ask(feed=str(feed), target=str(target), batch=batch)
        return next(iter(_samples.read(target).values()))


@contextmanager
def contest(contestants: Mapping[str, Contestant], folder: Path, *, quick: bool = False) -> Iterator[Contest]:
    """Start a worker for every contestant and settings; end them all."""
    workers: dict[str, list[_Process]] = {name: [] for name in contestants}
    try:
        for name, contestant in contestants.items():
            for settings in contestant.settings:
                workers[name].append(_Process(contestant, settings))
        yield Contest(workers, folder, 4 if quick else _ROUNDS)
    finally:
        for one in (process for processes in workers.values() for process in processes):
            one.end()
