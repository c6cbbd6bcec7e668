"""An environment with the public clients of the protocol, made once for each set of pins."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PINS = HERE / "clients.txt"
DRIVER = HERE / "clients_driver.py"


def interpreter() -> Path:
    """The interpreter that has the clients; the calling test is skipped where no index can be reached."""
    key = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airflow-model-deploy"
    folder = cache / f"protocol-clients-{key}"
    python = folder / "bin" / "python"
    with _lock(cache / f"{folder.name}.lock"):
        if not (folder / "complete").exists():
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            # Nothing is resolved and nothing is built: the pins are what was tested.
            _run([*pip, "--no-deps", "--no-compile", "--only-binary", ":all:", "--requirement", str(PINS)])
            (folder / "complete").touch()
    return python


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode == 0:
        return
    if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
        pytest.skip(f"the clients can't be installed from here: {done.stderr.strip().splitlines()[-1]}")
    raise AssertionError(done.stderr)


def ask(python: Path, client: str, url: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Let the driver run all its scenarios with one client; return what the client gave for each."""
    tensors = {name: pack(array) for name, array in arrays.items()}
    done = subprocess.run(
        [str(python), str(DRIVER), client],
        input=json.dumps({"url": url, "tensors": tensors}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "")},
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def pack(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "hex": array.tobytes().hex()}


def unpack(record: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(bytes.fromhex(record["hex"]), record["dtype"]).reshape(record["shape"])
