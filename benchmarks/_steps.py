"""Runs the engine's steps as a user without Airflow does: `model-deploy run STEP --request FILE`, a process each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL, SESSION = "model.onnx", "session.json"


def say(text: str) -> None:
    """Tell how far it is, on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Steps:
    """A store, and the steps run in it.

    Args:
        folder: an empty folder, which gets the store and the requests.
        taken: (step, seconds) of every step that was run.
    """

    folder: Path
    taken: list[tuple[str, float]] = field(default_factory=list)

    def run(self, step: str, spec: dict[str, Any], **inputs: dict[str, str]) -> dict[str, Any]:
        """Run a step and return its result; what the step says goes to stderr when it fails.

        Raises:
            RuntimeError: the step failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        request = self.folder / f"{len(self.taken):02d}-{step}.json"
        value = {"schema_version": 1, "step": step, "spec": spec, "inputs": inputs}
        request.write_text(json.dumps({**value, "store": (self.folder / "store").as_uri()}), encoding="utf-8")
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "airflow_model_deploy.engine.cli", "run", step, "--request", str(request)],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
        seconds = time.monotonic() - begin
        self.taken.append((step, seconds))
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            raise RuntimeError(f"step {step} ended with {done.returncode}")
        say(f"  {step}: {seconds:.0f} s")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def environment() -> dict[str, str]:
    """The environment of a process that imports the engine, the example models and the loader of samples."""
    paths = [REPOSITORY, REPOSITORY / "dags", REPOSITORY / "benchmarks"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "ORT_DISABLE_TELEMETRY": "1"}


def python(module: str, *arguments: str | Path) -> dict[str, Any]:
    """Run a module of this folder in an interpreter of its own and return the JSON object that it prints last."""
    return run_json([sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)])


def run_json(command: list[str]) -> dict[str, Any]:
    """Run a command and return the JSON object in its last line.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), cwd=REPOSITORY
    )
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        raise RuntimeError(f"{command[1:4]} ended with {done.returncode}")
    value: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return value


def files_of(artifact: dict[str, str]) -> Path:
    """The folder of an artifact's files."""
    return Path(unquote(urlparse(artifact["uri"]).path)) / "files"


def model_of(result: dict[str, Any]) -> Path:
    """The ONNX file that a step has made."""
    return files_of(result["artifact"]) / MODEL


def settings_of(result: dict[str, Any]) -> dict[str, Any]:
    """The session settings that the step `optimize` has chosen."""
    value: dict[str, Any] = json.loads((files_of(result["artifact"]) / SESSION).read_bytes())
    return value
