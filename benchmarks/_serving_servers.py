"""The servers of the contest: how each is started, what it is asked. One process and one thread for the model each."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import _serving_model as mlp
from benchmarks._serving_environments import interpreter, versions
from benchmarks._serving_process import Cores, running
from benchmarks._serving_requests import Mode, Rows, V2Binary, V2Json
from benchmarks._steps import REPOSITORY

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from benchmarks._serving_process import Running

_READY = f"/v2/models/{mlp.NAME}/ready"


@dataclass(frozen=True)
class Place:
    """Where servers find what they need.

    Args:
        folder: for logs and configurations.
        model: the ONNX file.
        servable: the servable of the same file.
        cores: where servers run.
    """

    folder: Path
    model: Path
    servable: Path
    cores: Cores


@dataclass(frozen=True)
class Server:
    """A server that can be started.

    Args:
        name: what it is called in rows.
        package: the distribution that it comes from; "": this one.
        python: its interpreter.
        command: what follows the interpreter, for a folder of its own and a port.
        ready: the path that answers 200 once it is ready.
        modes: what it understands.
    """

    name: str
    package: str
    python: Path
    command: Callable[[Path, int], list[str]]
    ready: str
    modes: tuple[Mode, ...]

    def versions(self) -> dict[str, str]:
        """What it is made of."""
        return versions(self.python, *filter(None, (self.package,)))

    def start(self, place: Place) -> AbstractContextManager[Running]:
        """Start it; it is ready inside the context and has ended after it."""
        port = free_port()
        folder = place.folder / self.name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        command = [str(self.python), *self.command(folder, port)]
        log = folder / f"{self.name}.log"
        return running(command, _environment(place), port, self.ready, place.cores, log)


def ours(
    place: Place, name: str = "ours", *options: str, modes: tuple[Mode, ...] = (V2Binary(), V2Json())
) -> Server:
    """Our server as the image starts it: with a folder and a port, all else at its defaults.

    Args:
        place: where it finds the servable.
        name: what it is called.
        options: more of its options.
        modes: what it is asked in.
    """
    module = "airflow_model_deploy.engine.serving"

    def command(_: Path, port: int) -> list[str]:
        return ["-m", module, "--servable", str(place.servable), "--port", str(port), *options]

    return Server(name, "", Path(sys.executable), command, _READY, modes)


def peers(place: Place) -> list[Server]:
    """All others; their venvs are made at the first call."""
    return [
        _fastapi(),
        mlserver(place),
        mlserver(place, "mlserver adaptive", **_ADAPTIVE),
        _kserve(),
        _bentoml(),
    ]


_ADAPTIVE = {"max_batch_size": 32, "max_batch_time": 0.002}


def mlserver(place: Place, name: str = "mlserver", **batching: float) -> Server:
    """MLServer with the model in its own process, which is cheaper than its default of a process beside it."""
    python = interpreter("mlserver")

    def command(folder: Path, port: int) -> list[str]:
        settings = {
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": 0,
            "debug": False,  # no log line a request
        }
        implementation = "benchmarks._serving_mlserver.Mlp"
        model = {
            "name": mlp.NAME,
            "implementation": implementation,
            "parameters": {"uri": str(place.model)},
        }
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        (folder / "model-settings.json").write_text(json.dumps(model | batching), encoding="utf-8")
        return [str(python.parent / "mlserver"), "start", str(folder)]

    return Server(name, "mlserver", python, command, _READY, (V2Json(),))


def _kserve() -> Server:
    def command(_: Path, port: int) -> list[str]:
        return ["-m", "benchmarks._serving_kserve", str(port)]

    return Server("kserve", "kserve", interpreter("kserve"), command, _READY, (V2Json(), V2Binary()))


def _fastapi() -> Server:
    def command(_: Path, port: int) -> list[str]:
        return ["-m", "uvicorn", "benchmarks._serving_fastapi:app", "--port", str(port), "--no-access-log"]

    return Server("fastapi", "fastapi", interpreter("fastapi"), command, "/ready", (Rows("/predict"),))


def _bentoml() -> Server:
    def command(_: Path, port: int) -> list[str]:
        service = "benchmarks._serving_bentoml:Mlp"
        return ["-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]

    return Server("bentoml", "bentoml", interpreter("bentoml"), command, "/readyz", (Rows("/predict"),))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def _environment(place: Place) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "MODEL": str(place.model),
        "ORT_DISABLE_TELEMETRY": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(place.folder / "bentoml-home"),
    }
