"""The flow on a small model, stage by stage, in this process or as a task of its own that may be killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil

from airflow_model_deploy.engine.artifacts import Reference, Store
from airflow_model_deploy.engine.steps import StepRequest, get_step, parse_spec, publish_code, run_request

if TYPE_CHECKING:
    from airflow_model_deploy.engine.steps import StepResult

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
ENDED_WITHIN_S = 5.0

FACTORY = {"path": "toy_model:build", "options": {"width": 32}}
FIT = {"path": "toy_pausing:fit"}
DATA = {"loader": {"path": "toy_data:load"}, "fingerprint": {"path": "toy_data:fingerprint"}}

# stage: (step, spec, inputs)
STAGES = {
    "train": ("train", {"name": "toy", "factory": FACTORY, "fit": FIT, "data": DATA, "epochs": 60}, {}),
    "compress": (
        "prune",
        {"method": "channels", "ratio": 0.5, "fit": FIT, "recovery_epochs": 40, "data": DATA},
        {"model": "train"},
    ),
    "quantize": ("quantize", {"mode": "dynamic", "data": DATA}, {"model": "compress"}),
    "optimize": ("optimize", {"data": DATA}, {"model": "quantize"}),
    "build": ("build", {"data": DATA}, {"model": "optimize", "baseline": "train"}),
    "test": ("test", {"data": DATA, "max_quality_drop": 5}, {"servable": "build", "baseline": "train"}),
    "prepare": ("prepare", {"latency_ms": 500}, {"servable": "build", "evaluation": "test"}),
    "package": ("package", {}, {"servable": "build", "plan": "prepare"}),
}

PAUSING = '''
"""Trains as toy_model does; stops in the middle of it where it is told to."""
import os, subprocess, sys, time
from pathlib import Path
import toy_model

def fit(model, inputs, targets, *, epochs, progress, seed=0):
    def pausing(steps, what):
        for number, step in enumerate(progress(steps, what)):
            if number == 20 and os.environ.get("HARDENING_PAUSE") in ("native", "workers"):
                pause(os.environ["HARDENING_PAUSE"])
            yield step
    toy_model.fit(model, inputs, targets, epochs=epochs, progress=pausing, seed=seed)

def pause(how):
    marker = Path(os.environ["HARDENING_MARKER"])
    if how == "workers":  # as a data loader's, which hold the step's output open
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    marker.touch()
    if how == "native":  # a computation that never gives the interpreter's lock back
        import ctypes
        ctypes.PyDLL(None).sleep(60)
    time.sleep(60)
'''


@dataclass(frozen=True)
class Workspace:
    """A store with what was made in it, and the user's code."""

    folder: Path
    code: Path
    made: dict[str, Reference]

    @property
    def store(self) -> Store:
        return Store(f"file://{self.folder}/store")

    def request(self, stage: str, **changes) -> StepRequest:
        step, spec, inputs = STAGES[stage]
        with importable(self.code):
            code = publish_code(self.store, parse_spec(get_step(step).spec, spec, step=step))
        return StepRequest(
            step=step,
            spec={**spec, **changes},
            inputs={role: self.store.reference(self.made[name].digest) for role, name in inputs.items()},
            store=self.store.url,
            code=code,
            result=f"runs/{uuid4().hex}/result.json",
        )

    def run(self, request: StepRequest) -> StepResult:
        with importable(self.code):
            return run_request(request)

    def without(self, stage: str, folder: Path) -> Workspace:
        """Copy it as it was before a stage, but with the choices that were pinned in it."""
        shutil.copytree(self.folder / "store", folder / "store")
        shutil.rmtree(folder / "store" / "cache" / STAGES[stage][0])
        shutil.rmtree(folder / "store" / "artifacts" / self.made[stage].digest.replace(":", "-"))
        return Workspace(folder, self.code, self.made)


def run_all(folder: Path, code: Path) -> Workspace:
    """Run every stage once, undisturbed."""
    workspace = Workspace(folder, code, {})
    for stage in STAGES:
        result = workspace.run(workspace.request(stage))
        assert result.status == "succeeded", result.error
        workspace.made[stage] = result.artifact
    return workspace


@contextlib.contextmanager
def importable(code: Path):
    """Let this process import the user's code, and forget it afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(code))
    try:
        yield
    finally:
        sys.path[:] = before
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]


class Task:
    """One request as an Airflow task runs it: a process of its own session, its step below it."""

    def __init__(
        self,
        workspace: Workspace,
        request: StepRequest,
        folder: Path,
        *,
        pause: str = "",
        temporary: Path | None = None,
    ) -> None:
        folder = folder / uuid4().hex
        self.mark, self.report, self.marker = uuid4().hex, folder / "report.json", folder / "marker"
        self.temporary = temporary or folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        (folder / "request.json").write_text(json.dumps(request.to_json()))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (HERE / "slowed", workspace.code, REPOSITORY))),
            "TMPDIR": str(self.temporary),
            "HARDENING_MARK": self.mark,
            "HARDENING_PAUSE": pause,
            "HARDENING_MARKER": str(self.marker),
        }
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "task.py"), str(folder / "request.json"), str(self.report)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.log = folder / "log"

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def processes(self) -> list[psutil.Process]:
        """Every process that this task brought about, its servers included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ended = process.status() == psutil.STATUS_ZOMBIE
                if not ended and process.environ().get("HARDENING_MARK") == self.mark:
                    found.append(process)
        return found

    def step_pid(self) -> int:
        until(self.report.with_suffix(".pid").is_file, 30)
        return int(self.report.with_suffix(".pid").read_text())

    def paused(self) -> None:
        """Wait until it stopped where it was told to."""
        until(self.marker.is_file, 60, lambda: self.log.read_text())

    def serving(self) -> None:
        """Wait until a server runs below it."""

        def server() -> bool:
            return any("--ready-file" in process.cmdline() for process in self.processes())

        until(server, 60, lambda: self.log.read_text(), every=0.1)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def finish(self, timeout: float = 60) -> dict:
        self.process.wait(timeout)
        return json.loads(self.report.read_text())

    def assert_gone(self) -> None:
        """Nothing of it runs, nothing of it lies about."""
        until(lambda: not self.processes(), ENDED_WITHIN_S, lambda: str(self.processes()), every=0.1)
        assert sorted(self.temporary.iterdir()) == []


def until(condition, timeout: float, tell=lambda: "", *, every: float = 0.02) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {tell()}"
        time.sleep(every)


def assert_nothing_half_published(store: Store, folder: Path) -> None:
    for path in (folder / "store" / "artifacts").iterdir():
        reference = store.reference(path.name.replace("-", ":", 1))
        if store.has(reference):
            store.fetch(reference)
